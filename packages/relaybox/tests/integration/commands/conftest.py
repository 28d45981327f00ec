"""Command services on the test's own database, and checks of the rows that they wrote."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from relaybox.commands import CommandService
from relaybox.db import Database
from relaybox.outbox import Notifier
from relaybox.settings import PostgresSettings

from tests.fixtures.bounds import WAIT_S
from tests.fixtures.counters import counters, submit

ServiceFactory = Callable[..., CommandService]


@pytest.fixture
async def make_service(postgres_settings: PostgresSettings) -> AsyncIterator[ServiceFactory]:
    """``make_service(**settings)``: a service with its own connections, like another process."""
    async with AsyncExitStack() as stack:

        def make(**changes: Any) -> CommandService:
            database = Database(postgres_settings.model_copy(update=changes), application_name="service")
            stack.push_async_callback(database.close)
            service = CommandService(
                database, [counters], notifier=Notifier(database), source_service="suite"
            )
            stack.push_async_callback(service.close)
            return service

        yield make


@pytest.fixture
async def service(make_service: ServiceFactory) -> CommandService:
    return make_service()


@pytest.fixture
async def counter_id(service: CommandService) -> UUID:
    """Return the id of a counter of the user "ada" at version 1."""
    return (await submit(service, "CreateCounter")).aggregate_id


@dataclass(frozen=True, kw_only=True)
class Written:
    """The rows of one aggregate in the four tables."""

    version: int
    total: int
    commands: int
    events: int
    outbox: int

    def check(self) -> "Written":
        """Check that inbox, events, outbox and snapshot agree (G01)."""
        assert self.version == self.events == self.outbox
        assert self.commands <= self.events
        return self


@pytest.fixture
def written(superuser: asyncpg.Connection) -> Callable[[UUID], Awaitable[Written]]:
    """``await written(id)``: the rows of an aggregate, checked for completeness and gaps."""

    async def look(aggregate_id: UUID) -> Written:
        versions = await superuser.fetch(
            "SELECT aggregate_version FROM domain_events WHERE aggregate_id = $1 ORDER BY id",
            str(aggregate_id),
        )
        assert [row[0] for row in versions] == list(range(1, len(versions) + 1))
        sent = await superuser.fetch(
            "SELECT (payload ->> 'version')::int FROM event_outbox WHERE key = $1 ORDER BY seq",
            str(aggregate_id),
        )
        assert [row[0] for row in sent] == [row[0] for row in versions]
        row = await superuser.fetchrow(
            "SELECT version, (state ->> 'total')::int AS total, (SELECT count(*) FROM command_inbox "
            "WHERE session_id = s.id) AS commands FROM aggregate_snapshots AS s WHERE id = $1",
            aggregate_id,
        )
        return Written(**row, events=len(versions), outbox=len(sent)).check()

    return look


@pytest.fixture
def until_blocked(superuser: asyncpg.Connection) -> Callable[..., Awaitable[None]]:
    """``await until_blocked(n)``: return when *n* statements of services wait for a lock."""

    async def wait(statements: int = 1) -> None:
        async with asyncio.timeout(WAIT_S):
            while await superuser.fetchval(_BLOCKED) < statements:
                pass

    return wait


_BLOCKED = (
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE datname = current_database() AND wait_event_type = 'Lock' AND usename = 'relaybox'"
)
