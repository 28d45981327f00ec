"""Notify relays and live streams of committed events.

A transaction that executed NOTIFY locks the whole database while it commits (published measurements: the p50
latency rises from 4.7 to 610 ms between 500 and 1,000 writes/s). So the transactions of commands do not
execute NOTIFY (G28). Instead, a background task of each process sends one notification for all commits since
its last notification. A notification may be lost, so every listener also polls.
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

#: Channel of PostgreSQL that wakes relays when rows were written to the outbox.
OUTBOX_CHANNEL: Final = "relaybox_outbox"
_SQL: Final = load_queries(__package__ or "relaybox.outbox", "outbox.sql")
_NOTIFIER: Final = "relaybox.outbox.notifier"
_KEYS: Final = "relaybox.outbox.keys"
#: PostgreSQL's limit for names of channels.
_CHANNEL_BYTES_MAX: Final = 63
#: PostgreSQL refuses payloads of 8,000 bytes or more. If the keys take more bytes than this bound, an empty
#: payload is sent, which means any key.
_PAYLOAD_BYTES_MAX: Final = 7_900
#: Bound of the keys to send. A payload has a byte or more per key, so with more keys it is empty anyway.
_KEYS_MAX: Final = _PAYLOAD_BYTES_MAX
#: Shortest pause between two notifications; after a longer idle time, a notification is sent at once.
_PAUSE_S_MIN: Final = 0.002
#: Pause in multiples of the last notification's duration: under load, few notifications cover many commits.
_PAUSES_PER_SEND: Final = 3
_PAUSE_S_MAX: Final = 0.05
#: Seconds that a stop waits for the last notification.
_STOP_S: Final = 1.0
_log = structlog.get_logger(__name__)


def channel_of(name: str, schema: str) -> str:
    """Return the channel that the installation in *schema* uses for *name*.

    Channels belong to the whole database, so the channel is ``<name>_<schema>``, cut to 63 bytes; for the
    schema ``public`` it is *name*. The SQL statements that notify compute the same channel. If two schemas
    have the same channel because it was cut, their listeners only poll more often than needed.
    """
    return name if schema == "public" else f"{name}_{schema}"[:_CHANNEL_BYTES_MAX]


def notify_on_commit(db: AsyncSession, key: str) -> None:
    """Send *key* to listeners after *db* commits, by the notifier that :meth:`Notifier.attach` attached.

    Does nothing if no notifier is attached to the session: listeners then find the event by polling.
    """
    if _NOTIFIER not in db.info:
        return
    if _KEYS not in db.info:
        db.info[_KEYS] = set[str]()
        event.listen(db.sync_session, "after_commit", _send_keys)
        event.listen(db.sync_session, "after_transaction_end", _discard_keys)
    db.info[_KEYS].add(key)


def _send_keys(session: Session) -> None:
    # SQLAlchemy emits after_commit for savepoints too, before the transaction is committed.
    if not session.in_nested_transaction():
        session.info[_NOTIFIER].notify(session.info[_KEYS])


def _discard_keys(session: Session, transaction: SessionTransaction) -> None:
    if transaction.parent is None:
        session.info[_KEYS].clear()


class Notifier:
    """Send the keys of this process's committed events to listeners, one notification for many commits.

    A notification has the keys that were passed to :meth:`notify` since the last notification. If these keys
    take more than 7,900 bytes, or one of them contains a comma, the notification has no keys, and listeners
    assume that any key may have new events. Keys are dropped if PostgreSQL fails (with a WARNING), or if they
    are not sent within 1 s when the notifier stops. Listeners find the events of dropped keys by polling.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._keys: set[str] = set()
        self._has_keys = asyncio.Event()
        self._stopping = False
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        state = "running" if self._task and not self._task.done() else "stopped"
        return f"<Notifier [{state} | {len(self._keys)} keys to send]>"

    def notify(self, keys: Iterable[str]) -> None:
        """Queue *keys* for the next notification, without waiting."""
        if len(self._keys) < _KEYS_MAX:
            self._keys.update(keys)
        if self._keys:
            self._has_keys.set()

    def attach(self, sessions: async_sessionmaker[AsyncSession]) -> None:
        """Notify automatically after each commit of these sessions that wrote to the outbox."""
        sessions.configure(info={_NOTIFIER: self})

    async def start(self) -> None:
        """Start to send in the background; PostgreSQL need not be reachable."""
        self._task = asyncio.create_task(self._run(), name="outbox-notifier")

    async def stop(self) -> None:
        """Send the queued keys and stop; drop the keys if PostgreSQL does not take them within 1 s."""
        if self._task is not None:
            self._stopping = True
            self._has_keys.set()
            await asyncio.wait({self._task}, timeout=_STOP_S)
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while not self._stopping or self._keys:
            await self._has_keys.wait()
            self._has_keys.clear()
            if not self._keys:
                continue
            keys, self._keys = self._keys, set()
            began_s = time.monotonic()
            try:
                async with self._database.connection() as connection:
                    await self._send(connection, keys)
            except Exception as error:  # noqa: BLE001 - PostgreSQL's notification queue may be full
                _log.warning(
                    "outbox notification not sent; listeners find the events by polling",
                    reason=str(error),
                    keys=len(keys),
                )
            pause_s = _PAUSES_PER_SEND * (time.monotonic() - began_s)
            await asyncio.sleep(min(max(pause_s, _PAUSE_S_MIN), _PAUSE_S_MAX))

    async def _send(self, connection: Executor, keys: set[str]) -> None:
        payload = ",".join(keys)
        if len(payload.encode()) > _PAYLOAD_BYTES_MAX or any("," in key for key in keys):
            payload = ""  # listeners then look for events of all keys
        await connection.fetch(_SQL["notify"], OUTBOX_CHANNEL, payload)
