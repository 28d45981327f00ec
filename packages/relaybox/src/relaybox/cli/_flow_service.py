"""Implement ``relaybox flow run``: run the flows of an application."""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Annotated

import typer

from relaybox.cli._loading import load_declared
from relaybox.consumers import Consumer, ConsumerCollector, check_consumer
from relaybox.db import BACKBONE
from relaybox.flows import (
    FlowDefinition,
    FlowExpiry,
    FlowMetrics,
    flow_subscription,
    flow_workers,
    park_flow,
)
from relaybox.idempotency import Sweeper
from relaybox.outbox import OutboxSettings
from relaybox.service import Service, ServiceResources, notifications, run_until_signal, service_resources
from relaybox.settings import DeadLetterSettings, TaskSettings
from relaybox.tasks import TaskCollector, TaskRunner

__all__ = ("run_flows",)


def run_flows(
    names: Annotated[
        list[str], typer.Argument(metavar="MODULE:NAME...", help="Functions declared with @flow.")
    ],
    topics: Annotated[
        list[str] | None,
        typer.Option(
            "--topic",
            help="Topic with events for which flows wait, by default domain-events; may be repeated.",
        ),
    ] = None,
    group: Annotated[
        str,
        typer.Option(
            "--group",
            help="Consumer group that reads these events; all its processes must run the same flows.",
        ),
    ] = "relaybox-flows",
) -> None:
    """Run flows declared with @flow, until SIGTERM or Ctrl-C; several processes share the flows.

    Name all versions that still have open flows. Reads POSTGRES_*, KAFKA_* and TASK_*; serves /healthz,
    /readyz and /metrics at HEALTH_PORT.
    """
    definitions = [load_declared(name, FlowDefinition, "@flow") for name in names]
    asyncio.run(_run(definitions, topics or ["domain-events"], group))


async def _run(definitions: Sequence[FlowDefinition], topics: Sequence[str], group: str) -> None:
    # All these settings are checked at the start, because steps may write to the outbox: with malformed
    # settings the first such step would fail.
    async with (
        service_resources(
            "relaybox-flows", BACKBONE, settings=(OutboxSettings, DeadLetterSettings, TaskSettings)
        ) as resources,
        notifications(resources.database),
    ):
        services = _services(resources, definitions)
        if any(one.event_types for one in definitions):
            services.insert(0, _consumer(resources, definitions, topics, group))
        await run_until_signal(*services)


def _services(resources: ServiceResources, definitions: Sequence[FlowDefinition]) -> list[Service]:
    database, registry = resources.database, resources.registry
    metrics = FlowMetrics(database, definitions, registry)
    runner = TaskRunner(
        database,
        flow_workers(database, definitions, metrics=metrics),
        on_exhausted=partial(park_flow, database),
        listens=True,
    )
    registry.register(TaskCollector(runner.statistics))
    return [runner, metrics, FlowExpiry(database), Sweeper(database, registry)]


def _consumer(
    resources: ServiceResources, definitions: Sequence[FlowDefinition], topics: Sequence[str], group: str
) -> Consumer:
    subscription = flow_subscription(definitions, group=group)
    consumer = Consumer(resources.database, resources.kafka, [subscription], topics=topics)
    resources.registry.register(ConsumerCollector(consumer.statistics))
    resources.checks["consumer"] = check_consumer(consumer.statistics)
    return consumer
