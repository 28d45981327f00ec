"""Provide what every service needs: settings, logs, connections, health pages, shutdown by signal."""

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
from relaybox.outbox import Notifier
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
    "notifications",
    "run_until_signal",
    "service_resources",
)

_log = structlog.get_logger(__name__)


class ServiceSettings(BaseSettings):
    """Settings of a service's log, and the address of its health pages."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True)

    log_level: LogLevel = "INFO"
    #: Whether log lines are JSON; None: JSON unless standard error, where lines are written, is a terminal.
    log_json: bool | None = None
    #: Address of ``/healthz``, ``/readyz`` and ``/metrics``; an API serves these pages itself.
    health_host: str = "127.0.0.1"
    health_port: Annotated[int, Field(ge=1, le=65_535)] = 8001


#: Settings that every service reads; the last two are for the sweeper, the job that removes old rows.
_SETTINGS: Final = (
    ServiceSettings,
    KafkaSettings,
    HttpSettings,
    PostgresSettings,
    IdempotencySettings,
    RetentionSettings,
)


class Service(Protocol):
    """A component that runs until it is stopped: a relay, a consumer, a task runner."""

    async def run(self) -> None:
        """Work until :meth:`stop` is called."""
        ...

    def stop(self) -> None:
        """Request that :meth:`run` completes its current work and returns; return without waiting for it."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class ServiceResources:
    """The connections, settings and checks of one service."""

    database: Database
    kafka: KafkaSettings
    #: Metrics that ``/metrics`` returns.
    registry: CollectorRegistry
    #: Checks that ``/readyz`` executes, by name; the service may add checks.
    checks: dict[str, Check]


@asynccontextmanager
async def service_resources(
    name: str,
    *schema: Migrations,
    settings: Sequence[type[BaseSettings]] = (),
    postgres: type[PostgresSettings] = PostgresSettings,
) -> AsyncGenerator[ServiceResources]:
    """Configure logging, and provide connections and health pages during an ``async with`` block.

    A service can start while PostgreSQL and Kafka are unavailable. ``/readyz`` reports the service as ready
    when PostgreSQL has all migrations of *schema* and Kafka responds.

    Args:
        name: Name of the service in logs and in ``pg_stat_activity``.
        schema: The migrations that the service needs.
        settings: Further classes of settings that the service reads, to check all settings at once.
        postgres: Settings class that reads ``POSTGRES_*``; a subclass may have other defaults.

    Raises:
        SettingsError: Settings are missing or malformed; the message has one line per setting.
        HealthAddressUnusable: The address ``HEALTH_HOST``, ``HEALTH_PORT`` cannot be opened.
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


@asynccontextmanager
async def notifications(database: Database) -> AsyncGenerator[Notifier]:
    """During an ``async with`` block, notify listeners after each commit that wrote to the outbox.

    Listeners are relays, live streams and task runners. Without a notification, a listener finds the
    committed changes at its next poll. The end of the block sends the queued notifications, and drops them if
    PostgreSQL does not accept them within 1 s.

    Args:
        database: A commit of one of its ``sessions`` causes a notification, which a connection of its pool
            sends.
    """
    notifier = Notifier(database)
    notifier.attach(database.sessions)
    await notifier.start()
    try:
        yield notifier
    finally:
        await notifier.stop()


def check_kafka(settings: KafkaSettings, *, when_unavailable: HealthState = HealthState.FAILED) -> Check:
    """Return a check that a Kafka broker responds.

    The check ends within 2 s, returns the same result for 1 s, and never blocks the event loop.

    Args:
        settings: Addresses of the brokers, and how to connect to them.
        when_unavailable: State of the result if no broker responds: FAILED for relays and agents, DEGRADED
            for an API, which works without Kafka.
    """
    late = CheckResult(
        state=when_unavailable, detail=ConnectionDiagnosis(settings.bootstrap_servers).message()
    )
    return SharedCheck(_BrokerCheck(settings, when_unavailable).run, late)


class _BrokerCheck:
    """Request the cluster's metadata, with one client until a certificate or key file changes."""

    def __init__(self, settings: KafkaSettings, when_unavailable: HealthState) -> None:
        self._settings = settings
        self._when_unavailable = when_unavailable
        self._client: AdminClient | None = None
        #: Values of ``KafkaSettings.file_stamps`` when the client was created.
        self._file_stamps = settings.file_stamps()
        self._diagnosis = ConnectionDiagnosis(settings.bootstrap_servers)

    async def run(self) -> CheckResult:
        # In a thread: librdkafka releases the interpreter lock while it waits, so the event loop continues.
        return await asyncio.to_thread(self._request)

    def _request(self) -> CheckResult:
        try:
            client = self._current_client()
            client.list_topics(timeout=CHECK_LIMIT_S * 0.9)
        except KafkaException as error:
            if self._client is not None:
                self._client.poll(0)
            return CheckResult(state=self._when_unavailable, detail=self._diagnosis.message(error.args[0]))
        self._diagnosis.reset()
        return CheckResult(state=HealthState.OK)

    def _current_client(self) -> AdminClient:
        stamps = self._settings.file_stamps()
        if self._client is None or stamps != self._file_stamps:
            self._diagnosis.reset()
            self._client, self._file_stamps = self._new_client(), stamps
        return self._client

    def _new_client(self) -> AdminClient:
        conf: dict[str, Any] = {
            **self._settings.client_config(),
            # Reconnect within a second after a broker is available again.
            "reconnect.backoff.max.ms": 1_000,
            # The check's result has the reason; librdkafka would also write the reason to standard error.
            "log_level": 0,
            "error_cb": self._diagnosis.record,
        }
        return AdminClient(conf)


async def run_until_signal(*services: Service) -> None:
    """Run *services* concurrently until the process gets SIGTERM or SIGINT, or one service ends.

    Then all services are stopped in the order of the arguments, and the call returns when each has ended.
    Call this in the main thread. This function makes Python collect garbage less often in the whole process.

    Raises:
        Exception: The error of a service. If several services failed, the error of the service that comes
            first in the arguments.
    """

    def stop() -> None:
        for service in services:
            service.stop()

    _reduce_garbage_collection()
    with _signal_handlers(stop):
        running = [asyncio.create_task(service.run()) for service in services]
        await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        stop()
        ended = await asyncio.gather(*running, return_exceptions=True)
    for outcome in ended:
        if isinstance(outcome, BaseException):
            raise outcome


def _reduce_garbage_collection() -> None:
    """Make Python collect garbage less often, because the loops of services create no reference cycles.

    With the default thresholds, garbage collections examined the rows of each batch and took a quarter of the
    time of a relay.
    """
    gc.freeze()
    gc.set_threshold(500_000, 50, 100)


@contextmanager
def _signal_handlers(action: Callable[[], None]) -> Generator[None]:
    def handle() -> None:
        _log.info("service stopping")
        action()

    loop, numbers = asyncio.get_running_loop(), (signal.SIGTERM, signal.SIGINT)
    # Only event loops on POSIX support signal handlers; elsewhere Ctrl-C raises KeyboardInterrupt.
    with suppress(NotImplementedError):
        for number in numbers:
            loop.add_signal_handler(number, handle)
    try:
        yield
    finally:
        with suppress(NotImplementedError):
            for number in numbers:
                loop.remove_signal_handler(number)
