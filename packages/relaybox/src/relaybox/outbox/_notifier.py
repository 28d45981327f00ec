"""Telling relays and live streams that something was committed (G28).

NOTIFY takes a database-wide lock at commit, so it is never issued inside a command's
transaction (others measured 4.7 → 610 ms p50 between 500 and 1,000 writes/s). Here one
connection of the process sends it afterwards, for all commits since the last time at once.
A notification is only a hint: whoever listens also polls.
"""

import asyncio
import time
from collections.abc import Iterable
from typing import Final

import structlog
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, SessionTransaction

from relaybox.db import Database, Executor, load_queries

__all__ = ("OUTBOX_CHANNEL", "Notifier", "channel_of", "notify_on_commit")

OUTBOX_CHANNEL: Final = "relaybox_outbox"
_SQL: Final = load_queries(__package__ or "relaybox.outbox", "outbox.sql")
_NOTIFIER: Final = "relaybox.outbox.notifier"
_KEYS: Final = "relaybox.outbox.keys"
#: PostgreSQL refuses longer names of channels.
_CHANNEL_BYTES_MAX: Final = 63
#: PostgreSQL refuses payloads of 8,000 bytes; an empty one means "anything may have changed".
_PAYLOAD_BYTES_MAX: Final = 7_900
#: So many do not fit anyway: with a comma each they take more than the payload may.
_KEYS_MAX: Final = _PAYLOAD_BYTES_MAX
#: At most this often; the first after a quiet time goes out at once.
_PAUSE_S_MIN: Final = 0.002
#: So many times as long as the last one took: where time is scarce, few tell of many commits.
_PAUSES_PER_SEND: Final = 3
_PAUSE_S_MAX: Final = 0.05
_log = structlog.get_logger(__name__)


def channel_of(name: str, schema: str) -> str:
    """Return the channel to LISTEN on for *name*: channels belong to a database, and each schema has its own.

    The notifying statements name it by the same rule. Two long names may meet in one channel, which costs
    needless polls only: a notification is a hint.
    """
    return name if schema == "public" else f"{name}_{schema}"[:_CHANNEL_BYTES_MAX]


def notify_on_commit(db: AsyncSession, key: str) -> None:
    """Have the session's notifier, if it has one, tell *key* when *db* commits."""
    if _NOTIFIER not in db.info:
        return
    if _KEYS not in db.info:
        db.info[_KEYS] = set[str]()
        event.listen(db.sync_session, "after_commit", _tell)
        event.listen(db.sync_session, "after_transaction_end", _forget)
    db.info[_KEYS].add(key)


def _tell(session: Session) -> None:
    # The event comes for savepoints too; what they hold is not committed before the whole is.
    if not session.in_nested_transaction():
        session.info[_NOTIFIER].notify(session.info[_KEYS])


def _forget(session: Session, transaction: SessionTransaction) -> None:
    if transaction.parent is None:
        session.info[_KEYS].clear()


class Notifier:
    """One process's voice: collects the keys of committed events and tells them, coalesced.

    Invariant: a key told to :meth:`notify` is sent after that call, or lost with a WARNING
    while PostgreSQL is away; the listeners' polls cover the loss.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._keys: set[str] = set()
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        state = "running" if self._task and not self._task.done() else "stopped"
        return f"<Notifier [{state} | {len(self._keys)} keys to tell]>"

    def notify(self, keys: Iterable[str]) -> None:
        """Tell that *keys* have news; returns at once."""
        if len(self._keys) < _KEYS_MAX:
            self._keys.update(keys)
        if self._keys:
            self._news.set()

    def attach(self, sessions: async_sessionmaker[AsyncSession]) -> None:
        """Have every commit of these sessions that wrote to the outbox told by itself."""
        sessions.configure(info={_NOTIFIER: self})

    async def start(self) -> None:
        """Begin to send; PostgreSQL may still be away."""
        self._task = asyncio.create_task(self._run(), name="outbox-notifier")

    async def stop(self) -> None:
        """Stop sending; what was not sent is found by polls."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            keys, self._keys = self._keys, set()
            began_s = time.monotonic()
            try:
                async with self._database.connection() as connection:
                    await self._send(connection, keys)
            except Exception as error:  # noqa: BLE001 - PostgreSQL's queue may be full, and is not for ever
                _log.warning("notification lost, listeners will poll", reason=str(error), keys=len(keys))
            pause_s = _PAUSES_PER_SEND * (time.monotonic() - began_s)
            await asyncio.sleep(min(max(pause_s, _PAUSE_S_MIN), _PAUSE_S_MAX))

    async def _send(self, connection: Executor, keys: set[str]) -> None:
        payload = ",".join(keys)
        if len(payload.encode()) > _PAYLOAD_BYTES_MAX:
            payload = ""
        await connection.fetch(_SQL["notify"], OUTBOX_CHANNEL, payload)
