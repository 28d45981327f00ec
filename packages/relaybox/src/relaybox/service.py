"""What a service needs beside its own work: how it speaks, what it stands on, and when it ends."""

import asyncio
import gc
import signal
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Annotated, Any, Final, Protocol

import structlog
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from prometheus_client import CollectorRegistry
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from relaybox.db import Database, Migrations
from relaybox.kafka import ConnectionDiagnosis
from relaybox.settings import (
    HttpSettings,
    IdempotencySettings,
    KafkaSettings,
    PostgresSettings,
    RetentionSettings,
    check_settings,
    load_settings,
)
from relaybox.telemetry import (
    CHECK_LIMIT_S,
    Check,
    CheckResult,
    DatabaseMetrics,
    HealthState,
    LogLevel,
    SharedCheck,
    check_postgres,
    configure_logging,
    health_app,
    serve_health,
)

__all__ = (
    "Service",
    "ServiceResources",
    "ServiceSettings",
    "check_kafka",
    "run_until_signal",
    "service_resources",
)

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


#: What every service reads; the last two for its sweeper.
_SETTINGS: Final = (
    ServiceSettings,
    KafkaSettings,
    HttpSettings,
    PostgresSettings,
    IdempotencySettings,
    RetentionSettings,
)


class Service(Protocol):
    """What works until it is told to stop: a relay, a consumer, a task runner."""

    async def run(self) -> None:
        """Work until :meth:`stop`."""
        ...

    def stop(self) -> None:
        """Let :meth:`run` finish what is in hand and return."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class ServiceResources:
    """What a service stands on."""

    database: Database
    kafka: KafkaSettings
    #: Shown at ``/metrics``.
    registry: CollectorRegistry
    #: Shown at ``/readyz``; the service may add its own.
    checks: dict[str, Check]


@asynccontextmanager
async def service_resources(
    name: str,
    *schema: Migrations,
    settings: Sequence[type[BaseSettings]] = (),
    postgres: type[PostgresSettings] = PostgresSettings,
) -> AsyncGenerator[ServiceResources]:
    """Log, connections and health pages of a service called *name*, for an ``async with`` block.

    It is ready when PostgreSQL has all of *schema* and Kafka answers; it starts without either.

    Args:
        name: The service's name in logs and in PostgreSQL.
        schema: The migrations that it needs.
        settings: Classes of settings that the service reads itself, checked with those read here.
        postgres: The class that ``POSTGRES_*`` are read as; it may have other defaults.

    Raises:
        SettingsError: one line per setting that is missing or malformed.
        HealthAddressUnusable: ``HEALTH_HOST``, ``HEALTH_PORT`` cannot be opened.
    """
    check_settings(*_SETTINGS, *settings)
    own, kafka = load_settings(ServiceSettings), load_settings(KafkaSettings)
    head_timeout_s = load_settings(HttpSettings).head_timeout_s
    configure_logging(name, own.log_level, own.log_json)
    database, registry = Database(load_settings(postgres), application_name=name), CollectorRegistry()
    DatabaseMetrics(registry).watch(database)
    checks = {"postgres": check_postgres(database, *schema), "kafka": check_kafka(kafka)}
    pages = health_app(checks, registry)
    try:
        async with serve_health(
            pages, host=own.health_host, port=own.health_port, head_timeout_s=head_timeout_s
        ):
            yield ServiceResources(database=database, kafka=kafka, registry=registry, checks=checks)
    finally:
        await database.close()


def check_kafka(settings: KafkaSettings, *, when_unavailable: HealthState = HealthState.FAILED) -> Check:
    """Check that a Kafka broker answers; *when_unavailable* is the state when none does.

    The API does its work without Kafka (``HealthState.DEGRADED``), relay and agents do not. Answers
    within 2 s; results are shared for 1 s; the event loop is never blocked.
    """
    late = CheckResult(
        state=when_unavailable, detail=ConnectionDiagnosis(settings.bootstrap_servers).message()
    )
    return SharedCheck(_BrokerCheck(settings, when_unavailable).run, late)


class _BrokerCheck:
    """Asks for the cluster's metadata with one client, made at the first check."""

    def __init__(self, settings: KafkaSettings, when_unavailable: HealthState) -> None:
        self._settings = settings
        self._when_unavailable = when_unavailable
        self._client: AdminClient | None = None
        self._diagnosis = ConnectionDiagnosis(settings.bootstrap_servers)

    async def run(self) -> CheckResult:
        # librdkafka waits in C without the interpreter lock; a thread keeps the loop free.
        return await asyncio.to_thread(self._ask)

    def _ask(self) -> CheckResult:
        try:
            client = self._client = self._client or self._new_client()
            client.list_topics(timeout=CHECK_LIMIT_S * 0.9)
        except KafkaException as error:
            if self._client is not None:
                self._client.poll(0)
            return CheckResult(state=self._when_unavailable, detail=self._diagnosis.message(error.args[0]))
        self._diagnosis.reset()
        return CheckResult(state=HealthState.OK)

    def _new_client(self) -> AdminClient:
        conf: dict[str, Any] = {
            **self._settings.client_config(),
            # Noticed within a second when the broker is back.
            "reconnect.backoff.max.ms": 1_000,
            # The result tells it; librdkafka would write to standard error by itself.
            "log_level": 0,
            "error_cb": self._diagnosis.record,
        }
        return AdminClient(conf)


async def run_until_signal(*services: Service) -> None:
    """Run *services* together until SIGTERM or SIGINT; the end of one stops the others too.

    They are told to stop in the order given. To be called in the main thread.

    Raises:
        Exception: whatever one of them raised, after all of them have ended.
    """

    def stop() -> None:
        for service in services:
            service.stop()

    _reduce_garbage_collection()
    with _on_signal(stop):
        running = [asyncio.create_task(service.run()) for service in services]
        await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        stop()
        ended = await asyncio.gather(*running, return_exceptions=True)
    for outcome in ended:
        if isinstance(outcome, BaseException):
            raise outcome


def _reduce_garbage_collection() -> None:
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
