"""Notifications of commits: sent after the commit, several at a time, without delaying the commit."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from relaybox.commands import CommandResult, CommandService
from relaybox.db import Database
from relaybox.outbox import OUTBOX_CHANNEL, Notifier, notify_on_commit
from relaybox.settings import PostgresSettings
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from tests.fixtures.bounds import WAIT_S
from tests.fixtures.counters import counters

LAST = "the-last-one"


class Ear:
    """A listener that stores the payloads of its notifications in order."""

    def __init__(self) -> None:
        self.heard: asyncio.Queue[str] = asyncio.Queue()

    def __call__(self, _connection: Any, _pid: int, _channel: str, payload: str) -> None:
        self.heard.put_nowait(payload)

    async def until(self, key: str) -> list[str]:
        """Return all payloads up to the first one that contains *key*."""
        payloads: list[str] = []
        async with asyncio.timeout(WAIT_S):
            while not payloads or key not in payloads[-1].split(","):
                payloads.append(await self.heard.get())
        return payloads


@pytest.fixture
async def ear(postgres_settings: PostgresSettings) -> AsyncIterator[Ear]:
    connection = await asyncpg.connect(
        host=postgres_settings.host,
        port=postgres_settings.port,
        user=postgres_settings.user,
        password=postgres_settings.password.get_secret_value(),
        database=postgres_settings.db,
    )
    ear = Ear()
    await connection.add_listener(OUTBOX_CHANNEL, ear)
    yield ear
    await connection.close()


@pytest.fixture
async def notifier(database: Database) -> AsyncIterator[Notifier]:
    notifier = Notifier(database)
    notifier.attach(database.sessions)
    await notifier.start()
    yield notifier
    await notifier.stop()


@pytest.mark.guarantee("G28")
async def test_commit_is_followed_by_a_notification(database: Database, notifier: Notifier, ear: Ear) -> None:
    async with database.sessions() as db:
        notify_on_commit(db, "a")
        notify_on_commit(db, "b")
        await db.execute(text("SELECT 1"))
        assert repr(notifier) == "<Notifier [running | 0 keys to send]>"
        await db.commit()
    (payload,) = await ear.until("a")
    assert sorted(payload.split(",")) == ["a", "b"]


async def test_rolled_back_session_never_notifies(database: Database, notifier: Notifier, ear: Ear) -> None:
    async with database.sessions() as db:
        for ending in (db.rollback, db.close):
            await db.execute(text("SELECT 1"))
            notify_on_commit(db, "never")
            await ending()
        await db.execute(text("SELECT 1"))
        notify_on_commit(db, LAST)
        await db.commit()
    assert await ear.until(LAST) == [LAST]


async def test_savepoint_is_notified_with_its_transaction(
    database: Database, notifier: Notifier, ear: Ear
) -> None:
    async with database.sessions() as db:
        async with db.begin_nested():
            await db.execute(text("SELECT 1"))
            notify_on_commit(db, "inner")
        assert "0 keys" in repr(notifier)
        await db.rollback()

        async with db.begin_nested():
            await db.execute(text("SELECT 1"))
            notify_on_commit(db, LAST)
        await db.commit()
    assert await ear.until(LAST) == [LAST]


async def test_session_notifies_each_commit_with_its_own_keys(
    database: Database, notifier: Notifier, ear: Ear
) -> None:
    async with database.sessions() as db:
        for key in ("one", "two"):
            await db.execute(text("SELECT 1"))
            notify_on_commit(db, key)
            await db.commit()
            assert (await ear.until(key))[-1] == key


@pytest.mark.guarantee("G28")
async def test_many_commits_share_one_notification(notifier: Notifier, ear: Ear) -> None:
    keys = {str(uuid4()) for _ in range(100)}
    for key in keys:
        notifier.notify([key])
    notifier.notify([LAST])
    (payload,) = await ear.until(LAST)
    assert set(payload.split(",")) == keys | {LAST}


async def test_key_with_a_comma_becomes_a_notification_without_keys(notifier: Notifier, ear: Ear) -> None:
    notifier.notify(["invoice 1,2", "invoice 3"])
    async with asyncio.timeout(WAIT_S):
        assert await ear.heard.get() == ""


async def test_too_many_keys_become_a_notification_without_keys(notifier: Notifier, ear: Ear) -> None:
    notifier.notify(str(uuid4()) for _ in range(1_000))
    async with asyncio.timeout(WAIT_S):
        assert await ear.heard.get() == ""
    notifier.notify([LAST])
    assert await ear.until(LAST) == [LAST]


async def test_empty_list_of_keys_is_not_notified(notifier: Notifier, ear: Ear) -> None:
    notifier.notify([])
    assert not notifier._has_keys.is_set()
    notifier.notify([LAST])
    assert await ear.until(LAST) == [LAST]


async def test_pending_keys_are_bounded_while_none_is_sent(database: Database) -> None:
    silent = Notifier(database)
    for number in range(20_000):
        silent.notify([str(number)])
    assert len(silent._keys) <= 8_000


async def test_notifier_continues_after_a_lost_connection(
    notifier: Notifier, ear: Ear, superuser: asyncpg.Connection
) -> None:
    notifier.notify(["before"])
    await ear.until("before")
    assert await superuser.fetchval(
        "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity WHERE application_name = 'test'"
    )
    async with asyncio.timeout(WAIT_S):
        while ear.heard.empty():
            notifier.notify(["after"])
            await asyncio.sleep(0.01)
    assert "after" in await ear.heard.get()


@pytest.mark.guarantee("G28")
async def test_transaction_of_a_command_sends_no_notify(
    database: Database, ear: Ear, superuser: asyncpg.Connection
) -> None:
    """Without a notifier on its sessions a command sends no notification: there is no trigger."""
    service = CommandService(database, [counters], notifier=Notifier(database), source_service="suite")

    async def create(db: AsyncSession) -> CommandResult:
        return await service.process_command(uuid4(), "CreateCounter", {}, db)

    await database.run_in_transaction(create)
    assert await superuser.fetchval("SELECT count(*) FROM event_outbox") == 1
    await superuser.execute("SELECT pg_notify($1, $2)", OUTBOX_CHANNEL, LAST)
    assert await ear.until(LAST) == [LAST]
