"""Write commands that arrive together in one statement.

A batch of 1 to 64 commands takes two round trips: a query reads the snapshots, and a statement checks the
versions and writes everything. If some commands of the batch create aggregates and others change aggregates,
each kind has a statement of its own. No command waits until a batch is full: a free worker processes the
command at once, and if both workers are busy, the command joins the next batch.
"""

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from relaybox.commands._decide import Command, CommandResult, Decision, LoadedAggregate, check_owner, decide
from relaybox.commands._domain import Domain
from relaybox.commands._errors import AggregateNotFound
from relaybox.commands._record import CommandLookup, Statements
from relaybox.db import Database, DatabaseBusy, DatabaseUnavailable, Executor, RetryTransaction
from relaybox.errors import RelayboxError
from relaybox.idempotency import Replay, RequestInFlight, replay_of
from relaybox.outbox import Notifier, OutboxSettings

__all__ = ("CommandBatcher",)

#: Workers (asyncio tasks, each with one batch) per domain and process; two, so that one worker decides its
#: commands while PostgreSQL executes the statement of the other.
_WORKERS_MAX: Final = 2
_BATCH_COMMANDS_MAX: Final = 64
_WAITING_COMMANDS_MAX: Final = 2_000
#: Seconds after its submission for which a command is attempted, retries included; after this time it fails.
_WAIT_S_MAX: Final = 10.0


@dataclass(eq=False, slots=True)
class PendingCommand:
    """A command that waits in a :class:`CommandBatcher`, and the future of its result."""

    command: Command
    result: asyncio.Future[CommandResult]
    #: Time of the event loop's clock, in seconds, after which the command is not attempted again.
    give_up_at: float


class CommandBatcher:
    """Batch the commands of one domain in one process.

    Invariant: this object processes at most one command per aggregate at a time, so its commands never race
    with each other for a version. They can race with other writers of the aggregate, for example in other
    processes: the version check in the statement then decides which command is written.
    """

    def __init__(
        self,
        database: Database,
        domain: Domain[Any],
        statements: Statements,
        notifier: Notifier,
        outbox: OutboxSettings,
    ) -> None:
        self._database = database
        self._domain = domain
        self._statements = statements
        self._notifier = notifier
        self._outbox = outbox
        self._waiting: deque[PendingCommand] = deque()
        #: Idempotency keys, as stored, of commands that are queued or being processed by this object.
        self._claimed: set[str] = set()
        #: Ids of the aggregates that have a command in the batch of a worker.
        self._busy: set[UUID] = set()
        self._workers: set[asyncio.Task[None]] = set()

    async def submit(self, command: Command) -> CommandResult:
        """Queue *command*, and return its result after the COMMIT.

        If the caller is cancelled, the command is not executed, unless a worker is already processing it.

        Raises:
            CommandError: The command was refused; nothing was written.
            DatabaseBusy: 2,000 commands are queued already, the command was not written within 10 s, or
                PostgreSQL did not grant a lock in time.
            DatabaseUnavailable: PostgreSQL is unreachable; the command may have been written or not.
            RequestInFlight: A command with the same key is queued or being processed in this process.
            Replay: A response is stored under the command's key; the exception has this response.
            KeyReused: The command's key was used for another request.
            ResponseNotKept: The request with this key was executed, and its response is not stored.
        """
        if len(self._waiting) >= _WAITING_COMMANDS_MAX:
            raise DatabaseBusy(f"{_WAITING_COMMANDS_MAX} commands are queued already; try again later")
        loop = asyncio.get_running_loop()
        pending = PendingCommand(command, loop.create_future(), loop.time() + _WAIT_S_MAX)
        if command.keyed_response is not None:
            self._claim(pending, command.keyed_response.claim.stored_key)
        self._waiting.append(pending)
        if len(self._workers) < _WORKERS_MAX:
            self._workers.add(asyncio.create_task(self._run_worker(), name=f"commands-{self._domain.name}"))
        return await pending.result

    def _claim(self, pending: PendingCommand, key: str) -> None:
        if key in self._claimed:
            raise RequestInFlight
        self._claimed.add(key)
        pending.result.add_done_callback(lambda _: self._claimed.discard(key))

    async def close(self) -> None:
        """Wait until all queued commands have ended."""
        while self._workers:
            await asyncio.wait(self._workers)

    async def _run_worker(self) -> None:
        try:
            while batch := self._next_batch():
                try:
                    await self._process(batch)
                finally:
                    self._busy.difference_update(pending.command.aggregate_id for pending in batch)
                self._waiting.extendleft(pending for pending in reversed(batch) if not pending.result.done())
        finally:
            # The worker is not removed by a done callback of its task, which runs later: a command submitted
            # between the worker's last look at the queue and the callback would start no worker, and wait for
            # ever.
            self._workers.difference_update({asyncio.current_task()})

    def _next_batch(self) -> list[PendingCommand]:
        """Remove the next batch from the queue: one command per aggregate, and none of a busy aggregate."""
        batch: list[PendingCommand] = []
        passed: list[PendingCommand] = []
        while self._waiting and len(batch) < _BATCH_COMMANDS_MAX:
            pending = self._waiting.popleft()
            if pending.command.aggregate_id in self._busy:
                passed.append(pending)
            else:
                self._busy.add(pending.command.aggregate_id)
                batch.append(pending)
        self._waiting.extendleft(reversed(passed))
        return batch

    async def _process(self, batch: Sequence[PendingCommand]) -> None:
        """Decide and write *batch*; if this fails, decide and write each command by itself.

        So the error of one command does not fail the other commands. If PostgreSQL is unavailable, all
        commands of the batch fail at once.
        """
        try:
            await self._decide_and_write(batch)
        except Exception as error:  # noqa: BLE001 - every error is passed to the caller of its command
            if len(batch) == 1 or isinstance(error, DatabaseUnavailable):
                self._fail(batch, error)
                return
            for pending in batch:
                if not pending.result.done():
                    await self._process([pending])

    async def _decide_and_write(self, batch: Sequence[PendingCommand]) -> None:
        """Try once to decide and write *batch*; a command that lost a race for a version stays pending.

        The worker then puts the command into its next batch, without a pause: of the commands that race for a
        version, one is always written.
        """
        waiting = [pending for pending in batch if self._is_open(pending)]
        if not waiting:
            return
        async with self._database.connection() as connection:
            decided = self._decide(waiting, await self._load(connection, waiting))
            for creates in (False, True):
                part = [pair for pair in decided if pair[0].command.creates == creates]
                if part:
                    await self._write(connection, part)

    def _is_open(self, pending: PendingCommand) -> bool:
        if not pending.result.done() and asyncio.get_running_loop().time() > pending.give_up_at:
            aggregate_id = pending.command.aggregate_id
            waited = f"the command for {aggregate_id} was not written within {_WAIT_S_MAX:.0f} s"
            self._fail([pending], DatabaseBusy(f"{waited}; try again later"))
        return not pending.result.done()

    async def _load(
        self, connection: Executor, waiting: Sequence[PendingCommand]
    ) -> Mapping[UUID, CommandLookup]:
        commands = [pending.command for pending in waiting]
        asked = [
            (one.aggregate_id, one.keyed_response and one.keyed_response.claim.stored_key) for one in commands
        ]
        # For a command that creates an aggregate and has no key there is nothing to read.
        wanted = [(one, key) for (one, key), of in zip(asked, commands, strict=True) if key or not of.creates]
        return await self._statements.load(connection, wanted) if wanted else {}

    def _decide(
        self, waiting: Sequence[PendingCommand], found: Mapping[UUID, CommandLookup]
    ) -> list[tuple[PendingCommand, Decision]]:
        decided: list[tuple[PendingCommand, Decision]] = []
        for pending in waiting:
            command = pending.command
            try:
                loaded = _aggregate_to_decide_on(command, found.get(command.aggregate_id))
                decided.append((pending, decide(self._domain, command, loaded, self._outbox)))
            except (RelayboxError, Replay) as outcome:
                self._fail([pending], outcome)
        return decided

    async def _write(self, connection: Executor, part: Sequence[tuple[PendingCommand, Decision]]) -> None:
        """Write the decisions in *part*, which either all create an aggregate or all change one.

        The results of written commands are set at once, so that a later failure cannot repeat these commands.
        A command stays pending, and is repeated with the next batch, if its aggregate has another version
        now, or if it is the only command and violates a constraint that shows a lost race.

        Raises:
            RetryTransaction: One of several commands violates such a constraint, and nothing was written. The
                error does not name the command, so the caller repeats each command by itself.
        """
        creates = part[0][0].command.creates
        decisions = [decision for _, decision in part]
        try:
            written = await self._statements.record(connection, decisions, creates=creates)
        except RetryTransaction:
            if len(part) > 1:
                raise
            return
        for pending, decision in part:
            if pending.command.aggregate_id in written and not pending.result.done():
                pending.result.set_result(decision.result())
        self._notifier.notify(str(one) for one in written)

    @staticmethod
    def _fail(batch: Sequence[PendingCommand], error: Exception) -> None:
        for pending in batch:
            if not pending.result.done():
                pending.result.set_exception(error)


def _aggregate_to_decide_on(command: Command, found: CommandLookup | None) -> LoadedAggregate | None:
    """Return the aggregate to decide on; None for a command that creates one.

    Raises:
        AggregateNotFound: The aggregate does not exist, or belongs to another principal.
        Replay: A response is stored under the command's key, and the caller may see the aggregate (G68).
        KeyReused: The command's key was used for another request.
        ResponseNotKept: The request with this key was executed, and its response is not stored.
    """
    if found is not None and found.stored_response is not None and command.keyed_response is not None:
        if not command.creates:
            check_owner(command, found.owner)
        raise replay_of(found.stored_response, command.keyed_response.claim)
    loaded = found.aggregate if found else None
    if loaded is None and not command.creates:
        raise AggregateNotFound(command.aggregate_id)
    return None if command.creates else loaded
