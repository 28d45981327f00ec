"""Checks of the two neighbours: PostgreSQL with its schema, and Kafka."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from relaybox.db import (
    Database,
    DatabaseError,
    Migrations,
    load_queries,
    pending_migrations,
)
from relaybox.kafka import Complaints
from relaybox.settings import KafkaSettings
from relaybox.telemetry._health import Check, CheckResult, HealthState

__all__ = ("check_kafka", "check_postgres")

#: A probe answers within this time, whatever hangs.
_LIMIT_S: Final = 2.0
#: Probes that come faster share an answer, so that they cannot become a load of their own.
_FRESH_S: Final = 1.0
#: How long a complete schema is believed before it is compared anew.
_SCHEMA_FRESH_S: Final = 30.0
_SQL: Final = load_queries(__package__ or "relaybox.telemetry", "checks.sql")
_OK: Final = CheckResult(state=HealthState.OK)


def check_postgres(database: Database, *migrations: Migrations) -> Check:
    """Check that PostgreSQL answers and lacks none of *migrations*; FAILED otherwise.

    Answers within 2 s; results are shared for 1 s. It takes a connection of *database*'s pool, so
    a pool that is used up counts as PostgreSQL being too busy.
    """
    schema = _Schema(database, migrations)
    late = CheckResult(state=HealthState.FAILED, detail="PostgreSQL did not answer within 2 s")
    return Shared(schema.examine, late)


def check_kafka(settings: KafkaSettings, *, away: HealthState = HealthState.FAILED) -> Check:
    """Check that a Kafka broker answers; *away* says what it means for this process when none does.

    The API does its work without Kafka (``HealthState.DEGRADED``), relay and agents do not. Answers
    within 2 s; results are shared for 1 s; the event loop is never blocked.
    """
    late = CheckResult(state=away, detail=Complaints(settings.bootstrap_servers).sentence())
    return Shared(_Broker(settings, away).examine, late)


class Shared:
    """Bounds a check in time, and lets callers within a second share one run of it."""

    def __init__(self, run: Callable[[], Awaitable[CheckResult]], late: CheckResult) -> None:
        self._run = run
        self._late = late
        self._last: CheckResult | None = None
        self._last_at_s = 0.0
        self._one_at_a_time = asyncio.Lock()

    async def __call__(self) -> CheckResult:
        async with self._one_at_a_time:
            if self._last is None or time.monotonic() - self._last_at_s > _FRESH_S:
                try:
                    async with asyncio.timeout(_LIMIT_S):
                        self._last = await self._run()
                except TimeoutError:
                    self._last = self._late
                self._last_at_s = time.monotonic()
            return self._last


class _Schema:
    """Asks for pending migrations, which reads files, only until none was pending; then pings."""

    def __init__(self, database: Database, migrations: tuple[Migrations, ...]) -> None:
        self._database = database
        self._migrations = migrations
        self._complete_until_s = float("-inf")

    async def examine(self) -> CheckResult:
        try:
            if time.monotonic() < self._complete_until_s:
                async with self._database.connection() as connection:
                    await connection.fetch(_SQL["ping"])
                return _OK
            return await self._compare()
        except DatabaseError as error:
            return CheckResult(state=HealthState.FAILED, detail=str(error))

    async def _compare(self) -> CheckResult:
        pending = await pending_migrations(self._database, *self._migrations)
        if pending:
            missing = ", ".join(pending)
            return CheckResult(
                state=HealthState.FAILED,
                detail=f"the schema lacks {missing}; run the migrations (relaybox migrate up)",
            )
        self._complete_until_s = time.monotonic() + _SCHEMA_FRESH_S
        return _OK


class _Broker:
    """Asks for the cluster's metadata with one client, made at the first check."""

    def __init__(self, settings: KafkaSettings, away: HealthState) -> None:
        self._settings = settings
        self._away = away
        self._client: AdminClient | None = None
        self._complaints = Complaints(settings.bootstrap_servers)

    async def examine(self) -> CheckResult:
        # librdkafka waits in C without the interpreter lock; a thread keeps the loop free.
        return await asyncio.to_thread(self._ask)

    def _ask(self) -> CheckResult:
        try:
            client = self._client = self._client or self._new_client()
            client.list_topics(timeout=_LIMIT_S * 0.9)
        except KafkaException as error:
            if self._client is not None:
                self._client.poll(0)
            return CheckResult(state=self._away, detail=self._complaints.sentence(error.args[0]))
        self._complaints.forget()
        return _OK

    def _new_client(self) -> AdminClient:
        conf: dict[str, Any] = {
            **self._settings.client(),
            # Noticed within a second when the broker is back.
            "reconnect.backoff.max.ms": 1_000,
            # The result tells it; librdkafka would write to standard error by itself.
            "log_level": 0,
            "error_cb": self._complaints.note,
        }
        return AdminClient(conf)
