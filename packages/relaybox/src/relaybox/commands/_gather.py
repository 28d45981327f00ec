"""Commands that arrive together are written together.

A command alone costs two round-trips: read the snapshot, then one statement that checks the
version and writes everything. Thirty-two at once cost the same two. Nobody waits to be
gathered: a command that finds a free worker leaves at once, the others leave with the next one.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import asyncpg

from relaybox.commands._decide import CommandResult, Decision, Loaded, Request, decide
from relaybox.commands._domain import Domain
from relaybox.commands._errors import AggregateNotFound
from relaybox.commands._record import Statements
from relaybox.db import (
    Database,
    DatabaseBusy,
    DatabaseUnavailable,
    Executor,
    RetryTransaction,
    map_database_errors,
)
from relaybox.errors import RelayboxError
from relaybox.outbox import Notifier

__all__ = ("Gatherer",)

#: Statements in flight per domain and process; two, so that one travels while the other is prepared.
_WORKERS_MAX: Final = 2
_BATCH_COMMANDS_MAX: Final = 64
_WAITING_COMMANDS_MAX: Final = 2_000
_ATTEMPTS_MAX: Final = 10


@dataclass(eq=False, slots=True)
class _Ticket:
    request: Request
    answer: asyncio.Future[CommandResult]
    attempts: int = 0


class Gatherer:
    """Gathers the commands of one domain in one process.

    Invariant: at most one command per aggregate is in flight here, so that commands of this
    process never race each other; those of other processes are decided by the version.
    """

    def __init__(
        self, database: Database, domain: Domain[Any], statements: Statements, notifier: Notifier
    ) -> None:
        self._database = database
        self._domain = domain
        self._statements = statements
        self._notifier = notifier
        self._waiting: deque[_Ticket] = deque()
        self._busy: set[UUID] = set()
        self._workers: set[asyncio.Task[None]] = set()

    async def submit(self, request: Request) -> CommandResult:
        """Take one command; the caller's own cancellation does not take it back.

        Raises:
            DatabaseBusy: more than 2,000 commands wait already.
        """
        if len(self._waiting) >= _WAITING_COMMANDS_MAX:
            raise DatabaseBusy(f"{_WAITING_COMMANDS_MAX} commands wait already; try again later")
        ticket = _Ticket(request, asyncio.get_running_loop().create_future())
        self._waiting.append(ticket)
        if len(self._workers) < _WORKERS_MAX:
            worker = asyncio.create_task(self._work(), name=f"commands-{self._domain.name}")
            self._workers.add(worker)
            worker.add_done_callback(self._workers.discard)
        return await ticket.answer

    async def close(self) -> None:
        """Wait until nothing is in flight."""
        while self._workers:
            await asyncio.wait(self._workers)

    async def _work(self) -> None:
        while batch := self._take():
            try:
                await self._process(batch)
            finally:
                self._busy.difference_update(ticket.request.aggregate_id for ticket in batch)

    def _take(self) -> list[_Ticket]:
        """The next tickets, at most one per aggregate and none of a busy one; the others keep their turn."""
        batch: list[_Ticket] = []
        passed: list[_Ticket] = []
        while self._waiting and len(batch) < _BATCH_COMMANDS_MAX:
            ticket = self._waiting.popleft()
            if ticket.request.aggregate_id in self._busy:
                passed.append(ticket)
            else:
                self._busy.add(ticket.request.aggregate_id)
                batch.append(ticket)
        self._waiting.extendleft(reversed(passed))
        return batch

    async def _process(self, batch: Sequence[_Ticket]) -> None:
        """Decide and write *batch*; a failure of the whole statement is looked into one by one."""
        try:
            await self._decide_and_write(batch)
        except Exception as error:  # noqa: BLE001 - every error belongs to a waiting caller and is handed over
            if len(batch) == 1 or isinstance(error, DatabaseUnavailable):
                self._fail(batch, error)
                return
            for ticket in batch:
                if not ticket.answer.done():
                    await self._process([ticket])

    async def _decide_and_write(self, batch: Sequence[_Ticket]) -> None:
        open_tickets = [ticket for ticket in batch if not ticket.answer.done()]
        while open_tickets:
            for ticket in open_tickets:
                ticket.attempts += 1
            async with self._database.connection() as connection:
                found = await self._load(connection, open_tickets)
                decided = self._decide(open_tickets, found)
                for creates in (False, True):
                    part = [pair for pair in decided if pair[0].request.creates == creates]
                    if part:
                        await self._write(connection, part)
            open_tickets = [ticket for ticket, _ in decided if not self._ended(ticket)]

    async def _load(self, connection: Executor, tickets: Sequence[_Ticket]) -> dict[UUID, Loaded]:
        ids = [ticket.request.aggregate_id for ticket in tickets if not ticket.request.creates]
        return dict(await self._statements.load(connection, ids)) if ids else {}

    def _decide(
        self, tickets: Sequence[_Ticket], found: dict[UUID, Loaded]
    ) -> list[tuple[_Ticket, Decision]]:
        decided: list[tuple[_Ticket, Decision]] = []
        for ticket in tickets:
            request = ticket.request
            loaded = found.get(request.aggregate_id)
            try:
                if loaded is None and not request.creates:
                    raise AggregateNotFound(request.aggregate_id)
                decided.append((ticket, decide(self._domain, request, loaded)))
            except RelayboxError as refusal:
                self._fail([ticket], refusal)
        return decided

    async def _write(self, connection: Executor, part: Sequence[tuple[_Ticket, Decision]]) -> None:
        """Write and answer at once, so that a later failure cannot make a written command run again.

        A single command that trips over a unique index or a serialization failure has lost its
        race and stays open.
        """
        creates = part[0][0].request.creates
        try:
            with map_database_errors():
                decisions = [decision for _, decision in part]
                written = await self._statements.record(connection, decisions, creates=creates)
        except (asyncpg.UniqueViolationError, RetryTransaction):
            if len(part) > 1:
                raise
            return
        for ticket, decision in part:
            if ticket.request.aggregate_id in written and not ticket.answer.done():
                ticket.answer.set_result(decision.result())
        self._notifier.notify(str(one) for one in written)

    def _ended(self, ticket: _Ticket) -> bool:
        if not ticket.answer.done() and ticket.attempts >= _ATTEMPTS_MAX:
            self._fail(
                [ticket], RetryTransaction(f"{ticket.request.aggregate_id} is written by others all the time")
            )
        return ticket.answer.done()

    @staticmethod
    def _fail(batch: Sequence[_Ticket], error: Exception) -> None:
        for ticket in batch:
            if not ticket.answer.done():
                ticket.answer.set_exception(error)
