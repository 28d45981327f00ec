"""Replay dead letters: the transactions in which their handlers run again."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Final, NamedTuple

from relaybox_types.envelope import EventEnvelope
from sqlalchemy.ext.asyncio import AsyncSession

from relaybox.consumers._crash_watch import CrashWatch
from relaybox.consumers._dead_letters import ClaimedLetter, DeadLetters
from relaybox.consumers._key_queue import Parking, Replay, RequestedReplays
from relaybox.consumers._message import Message, Partition
from relaybox.consumers._policy import DATABASE_DOWN
from relaybox.consumers._statistics import ConsumerSignal
from relaybox.consumers._subscription import EventTransaction
from relaybox.db import Database, executor_of
from relaybox.signals import SignalEmitter

__all__ = ("ReplayFailed", "Replayed", "Replayer")

#: After this time no further letter joins a transaction, because the transaction holds locks.
_SHARED_S: Final = 0.25


class ReplayFailed(Exception):
    """Raised when the replay of the dead letter *letter_id* failed; ``__cause__`` is the failure."""

    def __init__(self, letter_id: int) -> None:
        super().__init__(f"replay of dead letter {letter_id} failed")
        self.letter_id = letter_id


class Replayed(NamedTuple):
    """How many dead letters one transaction has replayed; 0 if no further one was requested."""

    letters: int
    #: Id of the last replayed letter; 0 if there is none.
    last_id: int


@dataclass(kw_only=True, slots=True)
class _Attempt:
    """What one attempt of a transaction has done so far."""

    #: The letter that was claimed last.
    letter_id: int | None = None
    #: The letters whose handlers have ended.
    replayed: list[tuple[ClaimedLetter, EventTransaction]] = field(
        default_factory=list[tuple[ClaimedLetter, EventTransaction]]
    )
    #: Whether the handlers of all its letters have ended, so that only the COMMIT can still fail.
    complete: bool = False

    @property
    def smaller(self) -> int:
        """Number of letters for the next attempt after this one failed; 0 if fewer letters cannot help.

        If a handler failed: the number of letters before its letter. If the COMMIT failed: half of the
        letters, rounded down.
        """
        return len(self.replayed) // 2 if self.complete else len(self.replayed)


class Replayer:
    """Replay dead letters of one group whose replay an operator has requested."""

    def __init__(
        self,
        database: Database,
        letters: DeadLetters,
        *,
        read: Callable[[Message], EventEnvelope],
        call_handler: Callable[[EventTransaction], Awaitable[None]],
        crash_watch: CrashWatch,
        signals: SignalEmitter[ConsumerSignal],
    ) -> None:
        """*read* returns the event of a message, and *call_handler* calls its handler; both may raise."""
        self._database = database
        self._letters = letters
        self._read = read
        self._call_handler = call_handler
        self._crash_watch = crash_watch
        self._signals = signals

    async def requested(self, starts: Mapping[Partition, bytes]) -> list[RequestedReplays]:
        """Return, for each partition, the requested replays that can begin now.

        The replay of a key can begin if the replay of its first unresolved letter is requested. One search
        looks at up to 500 keys of a partition, in the order of the SHA-256 hashes of the keys.

        Args:
            starts: The partitions to search, and for each the hash after which its search begins:
                ``next_start`` of the previous result, or empty to begin with the first key.

        Raises:
            DatabaseError: PostgreSQL is unavailable, or rejects the statement.
        """
        async with self._database.service_connection() as connection:
            return await self._letters.requested(connection, starts)

    async def replay(self, replay: Replay, *, after_id: int = 0, letters_max: int = 1) -> Replayed:
        """Handle the next requested letters of *replay* and mark them as replayed, in one transaction.

        If the handler of a letter fails, the transaction is repeated with only the letters before this one.
        If the COMMIT of several letters fails, the transaction is repeated with half of them.

        Args:
            replay: The letters to replay.
            after_id: Id of the key's letter that was replayed last; 0 if none was replayed.
            letters_max: How many letters of the key may share the transaction. After 0.25 s no further letter
                joins it.

        Returns:
            How many letters were replayed, and the id of the last one; zeros if none is requested.

        Raises:
            ReplayFailed: The handler of the first letter failed, its message is not an event, the COMMIT of a
                single letter failed, or PostgreSQL became unreachable after a letter was claimed. This
                failure is the ``__cause__`` of the error.
            DatabaseError: PostgreSQL failed before a letter was claimed.
        """
        attempt = _Attempt()

        async def work(db: AsyncSession) -> None:
            nonlocal attempt
            attempt = _Attempt()
            await self._replay_next(db, replay, after_id, letters_max, attempt)

        try:
            await self._database.run_in_transaction(work)
        except Exception as error:
            if isinstance(error, DATABASE_DOWN) or not attempt.smaller:
                if attempt.letter_id is None:
                    raise
                raise ReplayFailed(attempt.letter_id) from error
            self._signals.emit(ConsumerSignal.SPLIT)
            return await self.replay(replay, after_id=after_id, letters_max=attempt.smaller)
        self._crash_watch.replayed(replay, len(attempt.replayed))
        for _, unit in attempt.replayed:
            self._signals.emit(ConsumerSignal.REPLAYED)
            unit.run_commit_actions()
        return Replayed(len(attempt.replayed), attempt.letter_id or 0)

    async def _replay_next(
        self, db: AsyncSession, replay: Replay, after_id: int, letters_max: int, attempt: _Attempt
    ) -> None:
        until_s = monotonic() + _SHARED_S
        while len(attempt.replayed) < letters_max and (not attempt.replayed or monotonic() < until_s):
            letter = await self._letters.claim_next(executor_of(db), replay, attempt.letter_id or after_id)
            if letter is None:
                break
            attempt.letter_id = letter.id
            unit = EventTransaction(db=db, event=self._read(letter.message))
            if not letter.has_event_id:
                await self._letters.record_replayed(executor_of(db), unit.event.event_id)
            # The call is recorded on a second connection: the handler may end the process before the COMMIT.
            async with self._crash_watch.calling([letter.message], letter.id):
                await self._call_handler(unit)
            attempt.replayed.append((letter, unit))
        attempt.complete = True

    async def park_again(self, replay: Replay, parking: Parking) -> None:
        """Set a letter back to PARKED after its *replay* failed; an operator may request another replay."""
        async with self._database.service_connection() as connection:
            await self._letters.park_again(connection, parking)
        self._crash_watch.replayed(replay, 0)
