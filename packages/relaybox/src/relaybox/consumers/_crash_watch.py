"""Find the message whose handler ends the process, so that it is parked and the group goes on (G41)."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Collection
from contextlib import asynccontextmanager
from typing import Any, Final
from uuid import UUID, uuid4

import structlog

from relaybox.consumers._errors import HandlerEndedProcess
from relaybox.consumers._message import Message, Partition
from relaybox.consumers._policy import DATABASE_ERRORS
from relaybox.db import Database, load_queries

__all__ = ("ON_PARKED_PROCESSES_MAX", "CrashWatch")

_SQL: Final = load_queries(__package__ or "relaybox.consumers", "consumers.sql")
_log: Final = structlog.stdlib.get_logger(__name__)
#: How many processes may end in the handler of a message before the message is parked. The first process that
#: ended did not watch its messages, so the handler gets four attempts, as if it had raised an exception.
_PROCESSES_MAX: Final = 3
#: Then its ``on_parked`` is called. If processes end there too, the message is parked without it.
ON_PARKED_PROCESSES_MAX: Final = 2 * _PROCESSES_MAX
#: How long recording assigned or revoked partitions may take; meanwhile the consumer polls no messages.
_RECORD_S_MAX: Final = 3.0


class CrashWatch:
    """Count the processes that ended while they called the handler of a message.

    A process that crashes cannot record why. So each process records which partitions it reads, and deletes
    the record when it stops reading them. A process that is assigned a partition with a record of another
    process watches its messages: it calls one handler at a time, and commits before each call that it calls
    this handler. It ends the watch when it has handled as many messages as the other process may have begun.
    Without a crash this costs one statement for each change of the assignment.

    ::

                 ┌── a partition with another process's record ──┐
        not watching ◄──────── messages handled ──────────── watching
    """

    def __init__(self, database: Database, group: str, *, messages: int) -> None:
        """*messages* is the number of messages that a process of *group* may have begun when it crashes."""
        self._database = database
        self._group = group
        self._process = uuid4()
        self._messages = messages
        self._remaining = 0
        #: Messages (by their place) and letters (by their id) that this process has watched and not finished;
        #: their further attempts are watched too.
        self._unfinished: set[tuple[Partition, int] | int] = set()

    @property
    def is_watching(self) -> bool:
        """Whether handlers have to be called one at a time."""
        return self._remaining > 0

    async def open(self, partitions: Collection[Partition]) -> None:
        """Record that this process reads *partitions*; watch if another process may have crashed."""
        try:
            async with asyncio.timeout(_RECORD_S_MAX), self._database.service_connection() as connection:
                [row] = await connection.fetch(
                    _SQL["open_partitions"], self._group, *_columns(partitions), self._process
                )
        except (TimeoutError, *DATABASE_ERRORS) as error:
            _log.warning("assigned partitions not recorded", group=self._group, reason=str(error))
            return
        if row["left_open"]:
            self._remaining = self._messages
            _log.warning(
                "another process ended without stopping; handlers are called one at a time",
                group=self._group,
                messages=self._messages,
            )

    async def close(self, partitions: Collection[Partition]) -> None:
        """Record that this process has stopped reading *partitions*."""
        self._unfinished.clear()
        try:
            async with asyncio.timeout(_RECORD_S_MAX), self._database.service_connection() as connection:
                await connection.fetch(
                    _SQL["close_partitions"], self._group, *_columns(partitions), self._process
                )
        except (TimeoutError, *DATABASE_ERRORS) as error:
            # The next process watches although this one has not crashed.
            _log.warning("revoked partitions not recorded", group=self._group, reason=str(error))

    @asynccontextmanager
    async def calling(self, message: Message, event_id: UUID, letter_id: int = 0) -> AsyncGenerator[None]:
        """Record the call of a handler, and later its failure, if this process watches.

        Args:
            message: The message, or that of the dead letter.
            event_id: The event in it.
            letter_id: The dead letter that is replayed; 0 for a message.

        Raises:
            HandlerEndedProcess: The handler must not be called: too many processes have ended in it.
        """
        self.log_call(message, event_id)
        work = letter_id or (message.partition, message.offset)
        if not self.is_watching and work not in self._unfinished:
            yield
            return
        call = (self._group, *message.partition, message.offset, letter_id, self._process)
        async with self._database.service_connection() as connection:
            [row] = await connection.fetch(_SQL["watch_message"], *call)
        self._unfinished.add(work)
        if row["processes_ended"] >= _PROCESSES_MAX:
            raise HandlerEndedProcess(row["processes_ended"])
        try:
            yield
        except Exception:
            await self._release(call)
            raise

    def finished(self, work: Message | int) -> None:
        """Count a message that was handled or parked, or a letter that was replayed or parked again."""
        self._remaining = max(0, self._remaining - 1)
        self._unfinished.discard(work if isinstance(work, int) else (work.partition, work.offset))

    def log_call(self, message: Message, event_id: UUID) -> None:
        """Log where an event is, with LOG_LEVEL=DEBUG: its handler may end the process."""
        if logging.getLogger(__name__).isEnabledFor(logging.DEBUG):
            topic, partition = message.partition
            place = {"topic": topic, "partition": partition, "offset": message.offset}
            _log.debug("handler called", group=self._group, **place, event_id=str(event_id))

    async def _release(self, call: tuple[Any, ...]) -> None:
        try:
            async with self._database.service_connection() as connection:
                await connection.fetch(_SQL["release_message"], *call)
        except DATABASE_ERRORS as error:
            # If this process crashes before the next attempt, the message counts as its cause.
            _log.warning("failed handler not recorded", group=self._group, reason=str(error))


def _columns(partitions: Collection[Partition]) -> tuple[list[str], list[int]]:
    return [topic for topic, _ in partitions], [number for _, number in partitions]
