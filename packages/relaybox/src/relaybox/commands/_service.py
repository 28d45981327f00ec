"""Taking commands: inside the caller's transaction, or gathered with others into one statement."""

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
    """An aggregate as it stands, and the commands that wait for an agent."""

    aggregate: A
    #: Command type to command id.
    pending: Mapping[str, UUID]


class CommandService:
    """Takes the commands of some domains; one per process, made at the composition root.

    The registry: ``command_type`` finds the domain and its handler.

    Raises:
        TypeError: two domains have the same name or declare the same command type.
        TopicUndeclared: a domain's topic is not among ``OUTBOX_TOPICS``.
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
        """*outbox* says where events go; None reads it from the environment."""
        self._database = database
        self._outbox = outbox or load_settings(OutboxSettings)
        self._source_service = source_service
        self._domains: dict[str, Domain[Any]] = {}
        self._batchers: dict[str, CommandBatcher] = {}
        self._statements: dict[str, Statements] = {}
        for domain in domains:
            # Here, not at the first command: what is set wrong must stop the start.
            self._outbox.check(self._outbox.topic_for(domain.name, domain.topic), None, b"")
            for command_type in domain.handlers:
                if command_type in self._domains:
                    raise TypeError(
                        f"{domain.name} and {self._domains[command_type].name} declare {command_type}"
                    )
                self._domains[command_type] = domain
            if domain.name in self._statements:
                raise TypeError(f"two domains are called {domain.name}")
            self._statements[domain.name] = Statements(domain)
            self._batchers[domain.name] = CommandBatcher(
                database, domain, self._statements[domain.name], notifier, self._outbox
            )

    def __repr__(self) -> str:
        return f"<CommandService {self._source_service} [{len(self._domains)} command types]>"

    async def submit(self, command: Command, *, domain: Domain[Any]) -> CommandResult:
        """Take one command in a transaction of its own; returns after COMMIT has returned (G02).

        Commands that arrive together travel together: two round-trips for all of them. A lost
        race is decided again in a new snapshot, for 10 s at the most (G03, G04).

        Raises:
            CommandError: it was not taken; nothing was written.
            Replay: its key was answered already; this is the answer (G62, G66).
            IdempotencyError: its key is in use, or was used for another command; nothing was written.
            DatabaseUnavailable: PostgreSQL is away; whether a write in flight took effect is
                unknown (G05).
            DatabaseBusy: a lock or the command's turn did not come in time; nothing was written.
        """
        return await self._batchers[domain.name].submit(command)

    async def read(self, domain: Domain[A], aggregate_id: UUID, *, actor: str) -> AggregateView[A]:
        """The aggregate as its owner sees it, with what is pending for it; one round-trip.

        Raises:
            AggregateNotFound: there is none, or it belongs to somebody else.
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
        """Take one command inside the caller's own transaction; it is taken if *db* commits.

        Uses the isolation it finds and never retries. Without a *caller* it acts as this service
        itself, on anybody's aggregate.

        Raises:
            DuplicateCommand: the same command is pending; carries its id.
            RetryTransaction: the race was lost: roll back and run the whole transaction again,
                as :meth:`relaybox.db.Database.run_in_transaction` does.
            CommandError: it was refused for another reason.
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
            raise RetryTransaction(f"{session_id} has moved on; run the whole transaction again")
        notify_on_commit(db, str(session_id))
        return decision.result()

    async def close(self) -> None:
        """Wait for the commands in flight."""
        for batcher in self._batchers.values():
            await batcher.close()
