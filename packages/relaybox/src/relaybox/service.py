"""What a service needs beside its own work: how it speaks, what it stands on, and when it ends."""

import asyncio
import gc
import signal
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Annotated, Protocol

import structlog
from prometheus_client import CollectorRegistry
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from relaybox.db import Database, Migrations
from relaybox.settings import HttpSettings, KafkaSettings, PostgresSettings, load_settings
from relaybox.telemetry import (
    DatabaseMetrics,
    LogLevel,
    check_kafka,
    check_postgres,
    configure_logging,
    health_app,
    serve_health,
)

__all__ = ("Footing", "Service", "ServiceSettings", "footing", "run_until_signal")

_log = structlog.get_logger(__name__)


class ServiceSettings(BaseSettings):
    """How a service logs, and where it shows its health."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True)

    log_level: LogLevel = "INFO"
    #: Lines for people instead of JSON; by default people get theirs on a terminal.
    log_json: bool | None = None
    #: Where it serves ``/healthz``, ``/readyz`` and ``/metrics``; an API has these pages itself.
    health_host: str = "127.0.0.1"
    health_port: Annotated[int, Field(ge=1, le=65_535)] = 8001


class Service(Protocol):
    """What works until it is told to stop: a relay, a consumer, a task runner."""

    async def run(self) -> None:
        """Work until :meth:`stop`."""
        ...

    def stop(self) -> None:
        """Let :meth:`run` finish what is in hand and return."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Footing:
    """What a service stands on."""

    database: Database
    kafka: KafkaSettings
    #: Shown at ``/metrics``.
    registry: CollectorRegistry


@asynccontextmanager
async def footing(name: str, *schema: Migrations) -> AsyncGenerator[Footing]:
    """Log, connections and health pages of a service called *name*, for an ``async with`` block.

    It is ready when PostgreSQL has all of *schema* and Kafka answers; it starts without either.

    Raises:
        SettingsError: one line per setting that is missing or malformed.
        HealthAddressUnusable: ``HEALTH_HOST``, ``HEALTH_PORT`` cannot be opened.
    """
    settings, kafka = load_settings(ServiceSettings), load_settings(KafkaSettings)
    head_timeout_s = load_settings(HttpSettings).head_timeout_s
    configure_logging(name, settings.log_level, settings.log_json)
    database, registry = Database(load_settings(PostgresSettings), application_name=name), CollectorRegistry()
    DatabaseMetrics(registry).watch(database)
    pages = health_app({"postgres": check_postgres(database, *schema), "kafka": check_kafka(kafka)}, registry)
    try:
        async with serve_health(
            pages, host=settings.health_host, port=settings.health_port, head_timeout_s=head_timeout_s
        ):
            yield Footing(database=database, kafka=kafka, registry=registry)
    finally:
        await database.close()


async def run_until_signal(*services: Service) -> None:
    """Run *services* together until SIGTERM or SIGINT; the end of one stops the others too.

    They are told to stop in the order given. To be called in the main thread.

    Raises:
        Exception: whatever one of them raised, after all of them have ended.
    """

    def stop() -> None:
        for service in services:
            service.stop()

    _collect_less()
    with _on_signal(stop):
        running = [asyncio.create_task(service.run()) for service in services]
        await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        stop()
        ended = await asyncio.gather(*running, return_exceptions=True)
    for outcome in ended:
        if isinstance(outcome, BaseException):
            raise outcome


def _collect_less() -> None:
    """Look for cycles less often: loops make none, and looking took a quarter of a relay's time.

    Not once per wave of a backlog, whose rows it would walk through for nothing.
    """
    gc.freeze()
    gc.set_threshold(500_000, 50, 100)


@contextmanager
def _on_signal(action: Callable[[], None]) -> Generator[None]:
    def act() -> None:
        _log.info("stopping")
        action()

    loop, numbers = asyncio.get_running_loop(), (signal.SIGTERM, signal.SIGINT)
    # Only POSIX has them; elsewhere the interpreter's own answer to Ctrl-C remains.
    with suppress(NotImplementedError):
        for number in numbers:
            loop.add_signal_handler(number, act)
    try:
        yield
    finally:
        with suppress(NotImplementedError):
            for number in numbers:
                loop.remove_signal_handler(number)
