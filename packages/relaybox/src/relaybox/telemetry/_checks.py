"""Check PostgreSQL and its schema; limit each check in time and rate."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

from relaybox.db import (
    READ_ONLY_MESSAGE,
    Database,
    DatabaseError,
    Migrations,
    load_queries,
    map_service_errors,
    pending_migrations,
)
from relaybox.telemetry._health import Check, CheckResult, HealthState

__all__ = ("CHECK_LIMIT_S", "SharedCheck", "check_postgres")

#: Seconds that a check may take.
CHECK_LIMIT_S: Final = 2.0
#: Seconds for which calls share one result, so that frequent probes cause no load.
_FRESH_S: Final = 1.0
#: Seconds for which the result "no migration is missing" is reused, before migrations are compared again.
_SCHEMA_FRESH_S: Final = 30.0
_SQL: Final = load_queries(__package__ or "relaybox.telemetry", "checks.sql")
_OK: Final = CheckResult(state=HealthState.OK)


def check_postgres(database: Database, *migrations: Migrations) -> Check:
    """Return a check that PostgreSQL responds, accepts writes and has all *migrations*.

    If one of these is not the case, the state is FAILED. The check ends within 2 s, and calls within 1 s
    share one result. The check takes a connection from the pool of *database*, so the state is also FAILED if
    all connections of the pool stay in use.
    """
    schema = _SchemaCheck(database, migrations)
    detail = (
        f"PostgreSQL did not respond within {CHECK_LIMIT_S:g} s; check the server, the network and whether "
        "all POSTGRES_POOL_SIZE connections are in use"
    )
    late = CheckResult(state=HealthState.FAILED, detail=detail)
    return SharedCheck(schema.run, late)


class SharedCheck:
    """A check with a limit of time and rate.

    A call of this object calls *run*. If *run* takes longer than 2 s, *run* is cancelled and the result is
    *late*. All calls within 1 s get the same result, and *run* is never called twice at the same time.
    """

    def __init__(self, run: Callable[[], Awaitable[CheckResult]], late: CheckResult) -> None:
        self._run = run
        self._late = late
        self._last: CheckResult | None = None
        self._last_at_s = 0.0
        self._lock = asyncio.Lock()

    async def __call__(self) -> CheckResult:
        async with self._lock:
            if self._last is None or time.monotonic() - self._last_at_s > _FRESH_S:
                try:
                    async with asyncio.timeout(CHECK_LIMIT_S):
                        self._last = await self._run()
                except TimeoutError:
                    self._last = self._late
                self._last_at_s = time.monotonic()
            return self._last


class _SchemaCheck:
    """Check that PostgreSQL accepts writes and that no migration is missing.

    The search for missing migrations reads files. After a search that found none, the checks of the next 30 s
    only query the server.
    """

    def __init__(self, database: Database, migrations: tuple[Migrations, ...]) -> None:
        self._database = database
        self._migrations = migrations
        self._complete_until_s = float("-inf")

    async def run(self) -> CheckResult:
        try:
            with map_service_errors():
                if time.monotonic() < self._complete_until_s:
                    return await self._ping()
                return await self._compare()
        except DatabaseError as error:
            return CheckResult(state=HealthState.FAILED, detail=str(error))

    async def _ping(self) -> CheckResult:
        async with self._database.connection() as connection:
            [row] = await connection.fetch(_SQL["ping"])
        if row["read_only"]:
            # The server is a standby now. Reads on the pool's connections would continue to succeed, so
            # replace the connections by connections to the new primary.
            self._database.replace_connections()
            return CheckResult(state=HealthState.FAILED, detail=READ_ONLY_MESSAGE)
        return _OK

    async def _compare(self) -> CheckResult:
        pending = await pending_migrations(self._database, *self._migrations)
        if pending:
            missing = ", ".join(pending)
            return CheckResult(
                state=HealthState.FAILED,
                detail=f"the schema lacks the migrations {missing}; run relaybox migrate up",
            )
        self._complete_until_s = time.monotonic() + _SCHEMA_FRESH_S
        return await self._ping()
