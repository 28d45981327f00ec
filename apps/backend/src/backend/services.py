"""The services of the backend; each is a process that runs until a signal.

Each function imports the modules of its service only: importing those of all services would double the start
time of the relay.
"""

import asyncio
import os
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from relaybox.settings import DeadLetterSettings, RelaySettings, TaskSettings, load_settings
from relaybox.telemetry import AddressUnusable, open_listener
from setproctitle import setproctitle

from backend.settings import (
    ApiSettings,
    GenesisSettings,
    ProductPostgresSettings,
    ServiceType,
    WorkspaceSettings,
)

if TYPE_CHECKING:
    from fastapi import FastAPI
    from relaybox.commands import CommandService
    from relaybox.outbox import Notifier
    from relaybox.service import ServiceResources

    from backend.genesis.agent import ConceptAgent
    from backend.genesis.guiding import GuidedRuns

__all__ = ("ApiAddressUnusable", "create_worker", "run_service")

#: Seconds that running requests have to finish at shutdown. Event streams are ended before.
_STOP_S: Final = 5
#: Seconds without a response to a health check after which uvicorn replaces a worker. With uvicorn's default
#: of 5 s, workers were killed while they started: on a busy machine their imports take longer.
_WORKER_SILENT_S: Final = 30
#: Seconds that the server keeps an idle connection: longer than clients do (proxies commonly 60 s), so that
#: the client closes first. A request that is sent while the server closes the connection gets no response;
#: with uvicorn's default of 5 s, which is also that of httpx2, this happened.
_IDLE_S: Final = 75
_METRICS_DIRECTORY: Final = "PROMETHEUS_MULTIPROC_DIR"
#: The title of the process in `ps`. The command lines of all services are equal; only SERVICE_TYPE differs.
_TITLE: Final = "python -m backend {role}"


class ApiAddressUnusable(AddressUnusable):
    """Raised when the API's address cannot be opened."""

    error_code = "API_ADDRESS_UNUSABLE"
    what = "the API"
    settings = "API"


def run_service(service_type: ServiceType) -> None:
    """Run one service until SIGTERM or SIGINT.

    Raises:
        RelayboxError: A setting is invalid, a port is in use, or the service cannot continue.
    """
    setproctitle(_TITLE.format(role=service_type))
    match service_type:
        case ServiceType.API_GATEWAY:
            _serve_api(load_settings(ApiSettings))
        case ServiceType.MESSAGE_RELAY:
            asyncio.run(_run_relay())
        case ServiceType.CONCEPT_AGENT:
            asyncio.run(_run_agent())
        case ServiceType.WORKSPACE_WORKER:
            asyncio.run(_run_worker())


def _serve_api(api: ApiSettings) -> None:
    import uvicorn
    from relaybox.serving import HeadTimeoutProtocol
    from uvicorn.supervisors import Multiprocess

    if api.api_workers > 1:
        # Check the settings in the parent: a worker with an invalid setting would be restarted endlessly.
        from backend.api import create_api

        create_api()
    config = uvicorn.Config(
        "backend.services:create_worker" if api.api_workers > 1 else "backend.api:create_api",
        factory=True,
        http=HeadTimeoutProtocol,
        workers=api.api_workers,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=_STOP_S,
        timeout_worker_healthcheck=_WORKER_SILENT_S,
        timeout_keep_alive=_IDLE_S,
    )
    with open_listener(api.api_host, api.api_port, backlog=2_048, error_class=ApiAddressUnusable) as listener:
        if api.api_workers > 1:
            with _shared_metrics_directory():
                Multiprocess(config, sockets=[listener]).run()
        else:
            uvicorn.Server(config).run(sockets=[listener])


def create_worker() -> "FastAPI":
    """Set the process title and create the API, in one of several worker processes."""
    from backend.api import create_api

    setproctitle(_TITLE.format(role=f"{ServiceType.API_GATEWAY} worker"))
    return create_api()


@contextmanager
def _shared_metrics_directory() -> Generator[None]:
    """Create the directory in which workers share their metrics, and delete the directory at the end.

    If the environment variable PROMETHEUS_MULTIPROC_DIR names a directory, create and delete nothing.
    """
    if os.environ.get(_METRICS_DIRECTORY):
        yield
        return
    with tempfile.TemporaryDirectory(prefix="relaybox-metrics-", ignore_cleanup_errors=True) as made:
        # prometheus_client reads the variable when a worker imports the library.
        os.environ[_METRICS_DIRECTORY] = made
        try:
            yield
        finally:
            del os.environ[_METRICS_DIRECTORY]


async def _run_relay() -> None:
    from relaybox.idempotency import Sweeper
    from relaybox.outbox import OutboxSettings
    from relaybox.relay import Relay, RelayCollector, TopicsFirst, check_relay
    from relaybox.service import run_until_signal, service_resources

    from backend.migrations import ALL

    async with service_resources(
        ServiceType.MESSAGE_RELAY.value,
        *ALL,
        settings=(RelaySettings, OutboxSettings),
        postgres=ProductPostgresSettings,
    ) as resources:
        settings = load_settings(RelaySettings)
        relay = Relay(resources.database, resources.kafka, settings)
        resources.registry.register(RelayCollector(relay.statistics))
        resources.checks["relay"] = check_relay(relay.statistics)
        first = TopicsFirst(relay, resources.kafka, settings, load_settings(OutboxSettings))
        await run_until_signal(first, Sweeper(resources.database, resources.registry))


async def _run_agent() -> None:
    from relaybox.commands import CommandService
    from relaybox.consumers import Consumer, ConsumerCollector, check_consumer
    from relaybox.flows import flow_subscription
    from relaybox.idempotency import Sweeper
    from relaybox.outbox import OutboxSettings
    from relaybox.service import notifications, run_until_signal, service_resources
    from relaybox.tasks import TaskCollector

    from backend.genesis.agent import AGENT
    from backend.genesis.muse import MuseSettings
    from backend.genesis.session import genesis
    from backend.migrations import ALL

    needed = (TaskSettings, MuseSettings, OutboxSettings, DeadLetterSettings, GenesisSettings)
    async with (
        service_resources(
            ServiceType.CONCEPT_AGENT.value, *ALL, settings=needed, postgres=ProductPostgresSettings
        ) as resources,
        notifications(resources.database) as notifier,
    ):
        commands = CommandService(resources.database, [genesis], notifier=notifier, source_service=AGENT)
        guided_runs, agent = _create_agent(resources, commands, notifier)
        try:
            requests = Consumer(resources.database, resources.kafka, agent.subscriptions())
            flows = flow_subscription([guided_runs.definition])
            decisions = Consumer(resources.database, resources.kafka, [flows])
            resources.registry.register(ConsumerCollector(requests.statistics, decisions.statistics))
            resources.checks["consumer"] = check_consumer(requests.statistics)
            resources.checks["flows"] = check_consumer(decisions.statistics)
            resources.registry.register(TaskCollector(agent.runner.statistics))
            sweeper = Sweeper(resources.database, resources.registry)
            await run_until_signal(requests, decisions, agent.runner, guided_runs.metrics, sweeper)
        finally:
            await commands.close()


def _create_agent(
    resources: "ServiceResources", commands: "CommandService", notifier: "Notifier"
) -> "tuple[GuidedRuns, ConceptAgent]":
    from relaybox.telemetry import CommandMetrics

    from backend.genesis.agent import ConceptAgent
    from backend.genesis.guiding import GuidedRuns
    from backend.genesis.muse import MuseSettings, muse_from_settings

    guided_runs = GuidedRuns(
        database=resources.database,
        commands=commands,
        settings=load_settings(GenesisSettings),
        registry=resources.registry,
    )
    agent = ConceptAgent(
        muse_from_settings(load_settings(MuseSettings)),
        database=resources.database,
        commands=commands,
        notifier=notifier,
        settings=load_settings(TaskSettings),
        metrics=CommandMetrics(resources.registry),
        guided_runs=guided_runs,
    )
    return guided_runs, agent


async def _run_worker() -> None:
    from relaybox.flows import FlowExpiry
    from relaybox.idempotency import Sweeper
    from relaybox.outbox import OutboxSettings
    from relaybox.service import notifications, run_until_signal, service_resources
    from relaybox.tasks import TaskCollector
    from relaybox.telemetry import CommandMetrics

    from backend.migrations import ALL
    from backend.workspace.pgn import ExportFileCleaner, WorkspaceWorker
    from backend.workspace.trash import TrashPurger

    needed = (TaskSettings, OutboxSettings, WorkspaceSettings)
    async with service_resources(
        ServiceType.WORKSPACE_WORKER.value, *ALL, settings=needed, postgres=ProductPostgresSettings
    ) as resources:
        metrics = CommandMetrics(resources.registry)
        worker = WorkspaceWorker(
            resources.database,
            settings=load_settings(TaskSettings),
            event_bytes_max=load_settings(OutboxSettings).message_bytes_max,
            metrics=metrics,
        )
        resources.registry.register(TaskCollector(worker.runner.statistics))
        async with notifications(resources.database):
            cleaners = (
                TrashPurger(resources.database, metrics=metrics),
                ExportFileCleaner(resources.database),
            )
            sweeper = Sweeper(resources.database, resources.registry)
            await run_until_signal(worker, *cleaners, sweeper, FlowExpiry(resources.database))
