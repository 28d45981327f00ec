"""Find the message whose handler ends the process, so that it can be parked and the group continues (G41)."""

import asyncio
from collections.abc import AsyncGenerator, Collection, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

import structlog

from relaybox.consumers._errors import HandlerEndedProcess
from relaybox.consumers._key_queue import Replay, RequestedReplays
from relaybox.consumers._message import Message, Partition
from relaybox.consumers._policy import DATABASE_ERRORS, database_reason
from relaybox.db import Database, load_queries

__all__ = ("ON_PARKED_PROCESSES_MAX", "CrashWatch")

_SQL: Final = load_queries(__package__ or "relaybox.consumers", "consumers.sql")
_log: Final = structlog.stdlib.get_logger(__name__)
#: A message is parked when the watch has counted this many processes that ended in its handler. The watch
#: begins after a crash, so it does not count the first process. In total the handler gets four attempts, as
#: many as a handler that raises an exception.
_PROCESSES_MAX: Final = 3
#: Parking a message calls ``on_parked``, which may end the process too. When the watch has counted this many
#: processes that ended in the handler or in ``on_parked``, the message is parked without ``on_parked``.
ON_PARKED_PROCESSES_MAX: Final = 2 * _PROCESSES_MAX
#: How long recording assigned or revoked partitions may take; meanwhile the consumer polls no messages.
_RECORD_S_MAX: Final = 1.0


@dataclass(kw_only=True, slots=True)
class _Remaining:
    """What has to be finished before the watch of a partition ends; mutable."""

    #: Number of messages.
    messages: int
    #: For each replay that was requested when the watch began, the number of its letters; None until the
    #: first search for requested replays.
    letters: dict[Replay, int] | None = None


class CrashWatch:
    """Count the processes that ended while they called the handler of a message.

    A process that crashes cannot record why. So each process records which partitions it reads, and deletes
    the record when it stops reading them. If a process is assigned a partition that has the record of another
    process, that process may have crashed. The new process then watches the partition: it calls one handler
    at a time, and before each call it commits a record of the message.

    The other process had called handlers of at most *messages* messages without a COMMIT, or of *letters*
    letters of a replay, and one of these messages or letters may have caused a crash. So the watch of a
    partition ends when this many of its messages are finished, and this many letters of each replay that was
    requested when the watch began; or when all its messages and replays are finished. Without a crash, the
    watch costs one statement for each change of the assignment.

    ::

                 ┌── a partition has the record of another process ──┐
        not watching ◄─ its messages and replays are finished ─── watching
    """

    def __init__(self, database: Database, group: str, *, messages: int, letters: int) -> None:
        """Watch no partition yet.

        Args:
            database: Has the records.
            group: The consumer group.
            messages: How many messages a process passes to handlers before their COMMIT, at most.
            letters: How many letters of one replay a process passes to handlers before their COMMIT, at most.
        """
        self._database = database
        self._group = group
        self._process = uuid4()
        self._messages = messages
        self._letters = letters
        #: What remains to be finished of each watched partition.
        self._remaining: dict[Partition, _Remaining] = {}
        #: Partition and offset of watched messages whose handlers have failed: the watch lasts until they are
        #: finished.
        self._failed: set[tuple[Partition, int]] = set()

    @property
    def is_watching(self) -> bool:
        """Whether handlers have to be called one at a time, because another process may have crashed."""
        return bool(self._remaining or self._failed)

    async def open(self, partitions: Collection[Partition]) -> None:
        """Record that this process reads *partitions*; watch those that a crashed process may have read."""
        try:
            async with asyncio.timeout(_RECORD_S_MAX), self._database.service_connection() as connection:
                rows = await connection.fetch(
                    _SQL["open_partitions"], self._group, *_columns(partitions), self._process
                )
        except (TimeoutError, *DATABASE_ERRORS) as error:
            reason = database_reason(error)
            _log.warning(
                "assigned partitions not recorded; a crash of a handler may not be counted",
                group=self._group,
                reason=reason,
            )
            return
        for row in rows:
            self._remaining[row["topic"], row["partition"]] = _Remaining(messages=self._messages)
        if rows:
            _log.warning(
                "another process may have ended without stopping; handlers are called one at a time",
                group=self._group,
                partitions=len(rows),
                messages=self._messages,
            )

    async def close(self, partitions: Collection[Partition], *, stops: bool = False) -> None:
        """Record that this process has stopped reading *partitions*, except those that it watches.

        The record of a watched partition stays, so the next process that reads the partition watches it too.

        Args:
            partitions: The partitions that this process does not read any more.
            stops: Whether this process is stopping normally. If so, it is recorded that no handler ended it.
        """
        closed = [partition for partition in partitions if partition not in self._remaining]
        for partition in partitions:
            self._remaining.pop(partition, None)
        self._failed = {place for place in self._failed if place[0] not in partitions}
        try:
            async with asyncio.timeout(_RECORD_S_MAX), self._database.service_connection() as connection:
                await connection.fetch(
                    _SQL["close_partitions"],
                    self._group,
                    *_columns(closed),
                    self._process,
                    stops,
                    _PROCESSES_MAX,
                )
        except (TimeoutError, *DATABASE_ERRORS) as error:
            # The next process watches although this one has not crashed.
            reason = database_reason(error)
            _log.warning(
                "revoked partitions not recorded; the next process may call handlers one at a time",
                group=self._group,
                reason=reason,
            )

    def end(self, partitions: Iterable[Partition]) -> None:
        """End the watch of *partitions*, whose messages are all finished."""
        for partition in partitions:
            self._remaining.pop(partition, None)

    def expect(self, found: RequestedReplays) -> None:
        """Let the watch of a partition include the replays that the first search has *found*."""
        remaining = self._remaining.get(found.partition)
        if remaining is not None and remaining.letters is None:
            remaining.letters = {one: 1 if one.key is None else self._letters for one in found.replays}
            self._end_if_finished(found.partition)

    @asynccontextmanager
    async def calling(self, messages: Sequence[Message], letter_id: int = 0) -> AsyncGenerator[None]:
        """Record the handler call in this block, and an error that it raises, if a partition is watched.

        Args:
            messages: The message that the handler gets. Nothing is recorded if there are several, because
                their shared transaction began before this process watched a partition.
            letter_id: Id of the dead letter that is replayed; 0 if the message is not replayed.

        Raises:
            HandlerEndedProcess: At least three counted processes ended in this handler; the block is not run.
            DatabaseError: The call cannot be recorded.
        """
        if not self.is_watching or len(messages) != 1:
            yield
            return
        partition, offset = messages[0].partition, messages[0].offset
        call = (self._group, *partition, offset, letter_id, self._process)
        async with self._database.service_connection() as connection:
            [row] = await connection.fetch(_SQL["watch_message"], *call)
        if row["processes_ended"] >= _PROCESSES_MAX:
            raise HandlerEndedProcess(row["processes_ended"])
        try:
            yield
        except Exception:
            if not letter_id:  # the watch lasts until the replay is finished, see `expect`
                self._failed.add((partition, offset))
            await self._release(call)
            raise

    def finished(self, message: Message, *, handled: bool = True) -> None:
        """Count a message as finished.

        *handled* is False if the group had processed the event before. Such a message is not counted for the
        end of the watch: its handler had committed, so its handler cannot have ended the crashed process.
        """
        self._failed.discard((message.partition, message.offset))
        if handled and (remaining := self._remaining.get(message.partition)) is not None:
            remaining.messages -= 1
            self._end_if_finished(message.partition)

    def replayed(self, replay: Replay, letters: int) -> None:
        """Count *letters* of *replay* as finished; 0 if the replay has ended."""
        remaining = self._remaining.get(replay.partition)
        if remaining is None or not remaining.letters or replay not in remaining.letters:
            return
        remaining.letters[replay] -= letters
        if not letters or remaining.letters[replay] <= 0:
            del remaining.letters[replay]
        self._end_if_finished(replay.partition)

    def _end_if_finished(self, partition: Partition) -> None:
        remaining = self._remaining[partition]
        if remaining.messages <= 0 and remaining.letters == {}:
            del self._remaining[partition]

    async def _release(self, call: tuple[object, ...]) -> None:
        try:
            async with self._database.service_connection() as connection:
                await connection.fetch(_SQL["release_message"], *call)
        except DATABASE_ERRORS as error:
            # If this process crashes before the next attempt, the crash is counted for this message.
            _log.warning(
                "error of a watched handler not recorded; it may be counted as a crash",
                group=self._group,
                reason=str(error),
            )


def _columns(partitions: Collection[Partition]) -> tuple[list[str], list[int]]:
    return [topic for topic, _ in partitions], [number for _, number in partitions]
