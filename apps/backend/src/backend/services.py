"""The services of the backend, each a process of its own, run until a signal."""

import asyncio
import os
import signal
import socket
import tempfile
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final

import structlog
import uvicorn
from prometheus_client import CollectorRegistry
from relaybox.commands import CommandService
from relaybox.consumers import Consumer
from relaybox.db import Database
from relaybox.errors import RelayboxError
from relaybox.outbox import Notifier
from relaybox.relay import Relay
from relaybox.settings import KafkaSettings, PostgresSettings, RelaySettings, TaskSettings, load_settings
from relaybox.telemetry import (
    DatabaseMetrics,
    check_kafka,
    check_postgres,
    configure_logging,
    health_app,
    serve_health,
)
from uvicorn.supervisors import Multiprocess

from backend.genesis.agent import AGENT, ConceptAgent
from backend.genesis.muse import MuseSettings, muse_from_settings
from backend.genesis.session import genesis
from backend.migrations import ALL
from backend.settings import ApiSettings, ServiceSettings, ServiceType

__all__ = ("ApiPortTaken", "run_service")

#: What requests in flight get at the end; streams are asked to end before.
_STOP_S: Final = 5
_log = structlog.get_logger(__name__)


class ApiPortTaken(RelayboxError):
    """Raised when the API's address cannot be opened."""

    error_code = "API_PORT_TAKEN"

    def __init__(self, host: str, port: int, reason: str) -> None:
        super().__init__(
            f"cannot serve the API at {host}:{port}: {reason}; stop what uses it, or set API_HOST, API_PORT"
        )


def run_service(service: ServiceSettings) -> None:
    """Run the role that ``SERVICE_TYPE`` names until SIGTERM or SIGINT.

    Raises:
        RelayboxError: a setting is wrong, a port is taken, or the service cannot go on.
    """
    configure_logging(service.service_type, service.log_level, service.log_json)
    match service.service_type:
        case ServiceType.API_GATEWAY:
            _serve_api(load_settings(ApiSettings))
        case ServiceType.MESSAGE_RELAY:
            asyncio.run(_run_relay(service))
        case ServiceType.CONCEPT_AGENT:
            asyncio.run(_run_agent(service))


def _serve_api(api: ApiSettings) -> None:
    if api.api_workers > 1:
        # Read by prometheus_client when it is imported, in the workers that uvicorn starts.
        os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", tempfile.mkdtemp(prefix="relaybox-metrics-"))
    config = uvicorn.Config(
        "backend.api:create_api",
        factory=True,
        workers=api.api_workers,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=_STOP_S,
    )
    server = uvicorn.Server(config)
    with _listening(api) as listener:
        if api.api_workers > 1:
            Multiprocess(config, sockets=[listener]).run()
        else:
            server.run(sockets=[listener])


def _listening(api: ApiSettings) -> socket.socket:
    # Opened here because uvicorn ends the process without a word to do about it.
    try:
        return socket.create_server((api.api_host, api.api_port), backlog=2_048)
    except OSError as error:
        raise ApiPortTaken(api.api_host, api.api_port, error.strerror or str(error)) from error


async def _run_relay(service: ServiceSettings) -> None:
    database = Database(load_settings(PostgresSettings), application_name=service.service_type.value)
    kafka = load_settings(KafkaSettings)
    relay = Relay(database, kafka, load_settings(RelaySettings))
    async with _health(service, database, kafka):
        _on_signal(relay.stop)
        await relay.run()
    await database.close()


async def _run_agent(service: ServiceSettings) -> None:
    database = Database(load_settings(PostgresSettings), application_name=service.service_type.value)
    kafka = load_settings(KafkaSettings)
    notifier = Notifier(database)
    commands = CommandService(database, [genesis], notifier=notifier, source_service=AGENT)
    agent = ConceptAgent(
        database,
        muse_from_settings(load_settings(MuseSettings)),
        commands=commands,
        notifier=notifier,
        settings=load_settings(TaskSettings),
    )
    consumer = Consumer(database, kafka, [agent.subscription()])
    async with _health(service, database, kafka):
        await notifier.start()
        _on_signal(consumer.stop, agent.runner.stop)
        try:
            await _all_or_none(consumer.run(), agent.runner.run(), stop=(consumer.stop, agent.runner.stop))
        finally:
            await commands.close()
            await notifier.stop()
            await database.close()


async def _all_or_none(*work: Coroutine[Any, Any, None], stop: tuple[Callable[[], None], ...]) -> None:
    """Run *work* together; the end of one, or its error, stops the others in order."""
    tasks = [asyncio.create_task(one) for one in work]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for end in stop:
        end()
    await asyncio.gather(*tasks)


def _health(service: ServiceSettings, database: Database, kafka: KafkaSettings) -> Any:
    registry = CollectorRegistry()
    DatabaseMetrics(registry).watch(database)
    checks = {"postgres": check_postgres(database, *ALL), "kafka": check_kafka(kafka)}
    return serve_health(health_app(checks, registry), host=service.health_host, port=service.health_port)


def _on_signal(*actions: Callable[[], None]) -> None:
    def stop() -> None:
        _log.info("stopping")
        for action in actions:
            action()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        with suppress(NotImplementedError):
            loop.add_signal_handler(number, stop)
