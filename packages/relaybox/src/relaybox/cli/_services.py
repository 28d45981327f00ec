"""Define ``relaybox relay …`` and ``relaybox consumer …``, which run and inspect relays and consumers."""

import asyncio
from collections.abc import Sequence
from typing import Annotated, Literal, TypedDict

import typer

from relaybox.cli._consumers import group_lag, group_status
from relaybox.cli._errors import ErrorsAsLines
from relaybox.cli._loading import load_declared
from relaybox.cli._relays import accept, lanes, status
from relaybox.consumers import Consumer, ConsumerCollector, Subscription, check_consumer
from relaybox.db import BACKBONE
from relaybox.flows import FlowExpiry
from relaybox.idempotency import Sweeper
from relaybox.outbox import OutboxSettings
from relaybox.relay import Relay, RelayCollector, TopicsFirst, check_relay
from relaybox.service import notifications, run_until_signal, service_resources
from relaybox.settings import DeadLetterSettings, RelaySettings, load_settings

__all__ = ("consumer_commands", "relay_commands")

relay_commands = typer.Typer(
    cls=ErrorsAsLines, no_args_is_help=True, help="Publish the outbox to Kafka; inspect relays and lanes."
)
consumer_commands = typer.Typer(
    cls=ErrorsAsLines,
    no_args_is_help=True,
    help="Consume events with the handlers of an application; inspect consumer groups.",
)


@relay_commands.callback()
def relay() -> None:
    """Publish the outbox to Kafka; inspect relays and lanes."""


@relay_commands.command("run")
def run_relay() -> None:
    """Run a relay until SIGTERM or Ctrl-C; several relays share the lanes.

    Reads POSTGRES_*, KAFKA_* and RELAY_*; serves /healthz, /readyz and /metrics at HEALTH_PORT.
    """
    asyncio.run(_relay())


relay_commands.command()(status)
relay_commands.command()(lanes)
relay_commands.command()(accept)


@consumer_commands.callback()
def consumer() -> None:
    """Consume events with the handlers of an application; inspect consumer groups."""


@consumer_commands.command("run")
def run_consumer(
    names: Annotated[
        list[str], typer.Argument(metavar="MODULE:NAME...", help="Functions of one consumer group.")
    ],
    topics: Annotated[
        list[str] | None,
        typer.Option("--topic", help="Topic to consume, by default domain-events; may be repeated."),
    ] = None,
    concurrency: Annotated[
        int,
        typer.Option(
            "--concurrency",
            min=1,
            max=1_000,
            help="Transactions at the same time; each uses one of the POSTGRES_POOL_SIZE connections.",
        ),
    ] = 8,
    start: Annotated[
        Literal["earliest", "latest"],
        typer.Option(
            "--start",
            help="Where a group without committed offsets begins: with the first message of each partition, "
            "or after the last.",
        ),
    ] = "earliest",
) -> None:
    """Consume events with functions declared with @subscribe, until SIGTERM or Ctrl-C.

    Reads POSTGRES_* and KAFKA_*; serves /healthz, /readyz and /metrics at HEALTH_PORT.
    """
    subscriptions = [load_declared(name, Subscription, "@subscribe") for name in names]
    options = _ConsumerOptions(topics=topics or ["domain-events"], concurrency=concurrency, start=start)
    asyncio.run(_consumer(subscriptions, options))


consumer_commands.command("status")(group_status)
consumer_commands.command("lag")(group_lag)


class _ConsumerOptions(TypedDict):
    topics: Sequence[str]
    concurrency: int
    start: Literal["earliest", "latest"]


async def _relay() -> None:
    async with service_resources(
        "message-relay", BACKBONE, settings=(RelaySettings, OutboxSettings)
    ) as resources:
        settings = load_settings(RelaySettings)
        relay = Relay(resources.database, resources.kafka, settings)
        resources.registry.register(RelayCollector(relay.statistics))
        resources.checks["relay"] = check_relay(relay.statistics)
        first = TopicsFirst(relay, resources.kafka, settings, load_settings(OutboxSettings))
        await run_until_signal(first, Sweeper(resources.database, resources.registry))


async def _consumer(subscriptions: Sequence[Subscription], options: _ConsumerOptions) -> None:
    # All these settings are checked at the start, because handlers may write to the outbox: with malformed
    # settings the handler of the first event would fail.
    async with (
        service_resources(
            subscriptions[0].group, BACKBONE, settings=(OutboxSettings, DeadLetterSettings)
        ) as resources,
        notifications(resources.database),
    ):
        consumer = Consumer(resources.database, resources.kafka, subscriptions, **options)
        resources.registry.register(ConsumerCollector(consumer.statistics))
        resources.checks["consumer"] = check_consumer(consumer.statistics)
        await run_until_signal(
            consumer, Sweeper(resources.database, resources.registry), FlowExpiry(resources.database)
        )
