"""Notify relays and live streams of committed events (G28).

NOTIFY takes a database-wide lock at commit, so it is never issued in a command's transaction (published
measurements: p50 rises from 4.7 to 610 ms between 500 and 1,000 writes/s). Instead, one connection of the
process sends one notification for all commits since the last. A notification is a hint only: every listener
also polls.
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
#: PostgreSQL's limit of channel names.
_CHANNEL_BYTES_MAX: Final = 63
#: PostgreSQL refuses payloads of 8,000 bytes; an empty payload means that any key may have events.
_PAYLOAD_BYTES_MAX: Final = 7_900
#: More keys do not fit into a payload: each takes a comma.
_KEYS_MAX: Final = _PAYLOAD_BYTES_MAX
#: Shortest pause between notifications; the first after an idle time is sent at once.
_PAUSE_S_MIN: Final = 0.002
#: Pause in multiples of the last notification's duration: under load, few notifications cover many commits.
_PAUSES_PER_SEND: Final = 3
_PAUSE_S_MAX: Final = 0.05
_log = structlog.get_logger(__name__)


def channel_of(name: str, schema: str) -> str:
    """Return the channel for *name* in *schema*: channels are per database, and each schema has its own.

    The notifying statements compute the same name. Two long names may share one channel, which only costs
    needless polls.
    """
    return name if schema == "public" else f"{name}_{schema}"[:_CHANNEL_BYTES_MAX]


def notify_on_commit(db: AsyncSession, key: str) -> None:
    """Notify listeners of *key* when *db* commits, if the session has a notifier."""
    if _NOTIFIER not in db.info:
        return
    if _KEYS not in db.info:
        db.info[_KEYS] = set[str]()
        event.listen(db.sync_session, "after_commit", _send_keys)
        event.listen(db.sync_session, "after_transaction_end", _discard_keys)
    db.info[_KEYS].add(key)


def _send_keys(session: Session) -> None:
    # SQLAlchemy sends the event for savepoints too, before the transaction is committed.
    if not session.in_nested_transaction():
        session.info[_NOTIFIER].notify(session.info[_KEYS])


def _discard_keys(session: Session, transaction: SessionTransaction) -> None:
    if transaction.parent is None:
        session.info[_KEYS].clear()


class Notifier:
    """Send the keys of a process's committed events to listeners, coalesced.

    Invariant: a key given to :meth:`notify` is sent after that call, or lost with a WARNING while PostgreSQL
        is
    away; the listeners' polls compensate for the loss.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._keys: set[str] = set()
        self._has_keys = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        state = "running" if self._task and not self._task.done() else "stopped"
        return f"<Notifier [{state} | {len(self._keys)} keys to send]>"

    def notify(self, keys: Iterable[str]) -> None:
        """Send *keys* soon; return at once."""
        if len(self._keys) < _KEYS_MAX:
            self._keys.update(keys)
        if self._keys:
            self._has_keys.set()

    def attach(self, sessions: async_sessionmaker[AsyncSession]) -> None:
        """Notify automatically after each commit of these sessions that wrote to the outbox."""
        sessions.configure(info={_NOTIFIER: self})

    async def start(self) -> None:
        """Start to send; PostgreSQL may be away."""
        self._task = asyncio.create_task(self._run(), name="outbox-notifier")

    async def stop(self) -> None:
        """Stop sending; polls find the events of unsent keys."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await self._has_keys.wait()
            self._has_keys.clear()
            keys, self._keys = self._keys, set()
            began_s = time.monotonic()
            try:
                async with self._database.connection() as connection:
                    await self._send(connection, keys)
            except Exception as error:  # noqa: BLE001 - PostgreSQL's notification queue may be full for a while
                _log.warning("notification lost; listeners poll", reason=str(error), keys=len(keys))
            pause_s = _PAUSES_PER_SEND * (time.monotonic() - began_s)
            await asyncio.sleep(min(max(pause_s, _PAUSE_S_MIN), _PAUSE_S_MAX))

    async def _send(self, connection: Executor, keys: set[str]) -> None:
        payload = ",".join(keys)
        if len(payload.encode()) > _PAYLOAD_BYTES_MAX:
            payload = ""
        await connection.fetch(_SQL["notify"], OUTBOX_CHANNEL, payload)
