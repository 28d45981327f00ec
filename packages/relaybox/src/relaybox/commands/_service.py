"""Execute commands, in the caller's transaction or in batches."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from relaybox.commands._batcher import CommandBatcher
from relaybox.commands._decide import Caller, Command, CommandResult, decide
from relaybox.commands._domain import Aggregate, Domain
from relaybox.commands._errors import AggregateNotFound, UnknownCommand
from relaybox.commands._record import Statements
from relaybox.db import Database, RetryTransaction, executor_of, map_database_errors
from relaybox.outbox import Notifier, OutboxSettings, notify_on_commit
from relaybox.settings import load_settings

__all__ = ("AggregateView", "CommandService")

A = TypeVar("A", bound=Aggregate)


@dataclass(frozen=True, kw_only=True, slots=True)
class AggregateView(Generic[A]):
    """An aggregate, and its commands that are pending until an agent reports their end."""

    aggregate: A
    #: Id of the pending command of each command type that has one.
    pending: Mapping[str, UUID]


class CommandService:
    """Execute the commands of the registered domains; create one object per process.

    Raises:
        TypeError: Two domains have the same name or declare the same command type.
        TopicUndeclared: A domain's topic is not in ``OUTBOX_TOPICS``.
        SettingsError: ``OUTBOX_…`` is malformed.
    """

    def __init__(
        self,
        database: Database,
        domains: Sequence[Domain[Any]],
        *,
        notifier: Notifier,
        source_service: str,
        outbox: OutboxSettings | None = None,
    ) -> None:
        """Register *domains*.

        Args:
            database: The database to which commands are written.
            domains: The domains; their names and command types must be unique.
            notifier: Notifies relays and live streams after a COMMIT.
            source_service: Name of this service, recorded as the sender of commands that have no ``caller``.
            outbox: Topics of events; None reads ``OUTBOX_…`` from the environment.
        """
        self._database = database
        self._outbox = outbox or load_settings(OutboxSettings)
        self._source_service = source_service
        self._domains: dict[str, Domain[Any]] = {}
        self._batchers: dict[str, CommandBatcher] = {}
        self._statements: dict[str, Statements] = {}
        for domain in domains:
            # Checked here, so that a wrong setting fails the start and not the first command.
            self._outbox.check(self._outbox.topic_for(domain.name, domain.topic), None, b"")
            for command_type in domain.handlers:
                if command_type in self._domains:
                    raise TypeError(
                        f"the domains {self._domains[command_type].name} and {domain.name} "
                        f"both declare {command_type}; "
                        "rename one of the commands"
                    )
                self._domains[command_type] = domain
            if domain.name in self._statements:
                raise TypeError(f"two domains have the name {domain.name}; rename one of them")
            self._statements[domain.name] = Statements(domain)
            self._batchers[domain.name] = CommandBatcher(
                database, domain, self._statements[domain.name], notifier, self._outbox
            )

    def __repr__(self) -> str:
        return f"<CommandService {self._source_service} [{len(self._domains)} command types]>"

    async def submit(self, command: Command, *, domain: Domain[Any]) -> CommandResult:
        """Execute one command of *domain* and return its result after the COMMIT (G02).

        Commands that arrive together share one query and one statement, or two statements if some of them
        create aggregates and others do not. A command that loses a race for its aggregate's version is
        decided again on a new snapshot, for at most 10 s (G03, G04).

        Raises:
            CommandError: The command was refused; nothing was written.
            Replay: A response is stored under the command's key (G62, G66).
            IdempotencyError: The key is in use, or was used for another request, or the response of its
                request was not stored; nothing was written.
            DatabaseUnavailable: PostgreSQL is unreachable; the command may have been written or not (G05).
            DatabaseBusy: The command was not written within 10 s, or a lock was not granted.
        """
        return await self._batchers[domain.name].submit(command)

    async def read(self, domain: Domain[A], aggregate_id: UUID, *, actor: str) -> AggregateView[A]:
        """Return an aggregate that belongs to *actor*, with its pending commands, in one round trip.

        Raises:
            AggregateNotFound: There is no such aggregate, or it belongs to another principal.
        """
        async with self._database.connection() as connection:
            loaded = await self._statements[domain.name].load_one(connection, aggregate_id)
        if loaded.owner != actor:
            raise AggregateNotFound(aggregate_id)
        return AggregateView(
            aggregate=domain.aggregate.model_validate_json(loaded.state),
            pending={name: UUID(one) for name, one in loaded.pending.items()},
        )

    async def process_command(
        self,
        session_id: UUID,
        command_type: str,
        payload: Mapping[str, Any],
        db: AsyncSession,
        *,
        caller: Caller | None = None,
    ) -> CommandResult:
        """Execute one command in the transaction of *db*; it takes effect if *db* commits.

        Uses the isolation level of *db* and never retries.

        Args:
            session_id: Id of the aggregate; for a command that creates one, a new id.
            command_type: Selects the domain and the handler.
            payload: The command's payload, as JSON types.
            db: Session of the caller's transaction.
            caller: The sender; None if this service itself sends the command. A service may change the
                aggregates of all principals, and may send internal commands.

        Raises:
            DuplicateCommand: A command of the same type is pending; the error has its id.
            RetryTransaction: Another transaction changed the aggregate first: roll back and repeat the whole
                transaction, as :meth:`relaybox.db.Database.run_in_transaction` does.
            CommandError: The command was refused for another reason.
        """
        domain = self._domains.get(command_type)
        if domain is None:
            raise UnknownCommand(command_type, list(self._domains))
        statements = self._statements[domain.name]
        executor = executor_of(db)
        command = Command(
            aggregate_id=session_id,
            command_type=command_type,
            payload=payload,
            creates=domain.handlers[command_type].creates,
            caller=caller
            or Caller(actor=self._source_service, source_service=self._source_service, internal=True),
        )
        with map_database_errors():
            loaded = None if command.creates else await statements.load_one(executor, session_id)
            decision = decide(domain, command, loaded, self._outbox)
            written = await statements.record(executor, [decision], creates=command.creates)
        if session_id not in written:
            raise RetryTransaction(f"another transaction changed {session_id}; repeat the whole transaction")
        notify_on_commit(db, str(session_id))
        return decision.result()

    async def close(self) -> None:
        """Wait until all queued commands have ended."""
        for batcher in self._batchers.values():
            await batcher.close()
