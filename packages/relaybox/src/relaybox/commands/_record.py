"""Execute the two statements for a batch of commands: load the aggregates, record the decisions."""

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from pydantic_core import to_json

from relaybox.commands._decide import Decision, LoadedAggregate, loaded_aggregate_from_row
from relaybox.commands._domain import Domain
from relaybox.commands._errors import AggregateNotFound, ConstraintViolated, PayloadInvalid
from relaybox.db import (
    Executor,
    RetryTransaction,
    constraint_of,
    load_queries,
    map_database_errors,
    sqlstate_of,
)
from relaybox.errors import Detail
from relaybox.idempotency import (
    STORE_PARTS,
    StoredResponse,
    delete_expired,
    load_stored_response,
    split_body,
    stored_result,
)

__all__ = ("CommandLookup", "Statements", "map_constraint_errors")

#: Constraints that are violated if two commands race for one aggregate or one idempotency key. A violation of
#: any other constraint is reported as ConstraintViolated, like those of the domain's own table.
_RACE_CONSTRAINTS: Final = frozenset(
    {
        "idx_command_inbox_unique_pending_command",
        "domain_events_aggregate_version_key",
        "idempotency_cache_pkey",
    }
)
#: Classes of SQLSTATE: integrity constraint violation, data exception.
_INTEGRITY_CLASS: Final = "23"
_DATA_CLASS: Final = "22"

_SQL: Final = load_queries(__package__ or "relaybox.commands", "commands.sql")


@dataclass(frozen=True, kw_only=True, slots=True)
class CommandLookup:
    """The result of the query ``load`` for one command: its aggregate, and the response under its key."""

    #: Owner of the aggregate; None if this domain has no such aggregate.
    owner: str | None
    #: None if there is no such aggregate, or the command's key has a stored response.
    aggregate: LoadedAggregate | None
    #: The response stored under the command's key; None if there is none, or it has expired.
    stored_response: StoredResponse | None


class Statements:
    """Execute the queries ``load`` and ``record`` of ``commands.sql`` for one domain."""

    def __init__(self, domain: Domain[Any]) -> None:
        self._aggregate_type = domain.aggregate_type
        self.load_text = _SQL.including("load", load=domain.snapshots.load)
        self.create_text = _SQL.including("record", snapshot=domain.snapshots.create, **STORE_PARTS)
        self.advance_text = _SQL.including("record", snapshot=domain.snapshots.advance, **STORE_PARTS)

    async def load(
        self, executor: Executor, asked: Sequence[tuple[UUID, str | None]]
    ) -> Mapping[UUID, CommandLookup]:
        """Read the aggregate and the stored response of each command; return them by aggregate id.

        The call takes one round trip. Each large response body and the deletion of expired responses take one
        more.

        Args:
            executor: Connection to read from.
            asked: For each command the id of its aggregate, and the hash of its idempotency key (None for a
                command without a key).
        """
        ids, keys = [aggregate_id for aggregate_id, _ in asked], [key for _, key in asked]
        rows = await executor.fetch(self.load_text, ids, keys)
        if any(row["expired"] for row in rows):
            await delete_expired(executor, [key for key in keys if key is not None])
        return {row["id"]: await self._found(executor, row) for row in rows}

    async def _found(self, executor: Executor, row: Mapping[str, Any]) -> CommandLookup:
        ours = row["aggregate_type"] == self._aggregate_type
        stored_response = None
        if row["expired"] is False:
            stored_response = await load_stored_response(executor, row["key"], row)
        return CommandLookup(
            owner=row["owner"] if ours else None,
            aggregate=loaded_aggregate_from_row(row) if ours and stored_response is None else None,
            stored_response=stored_response,
        )

    async def load_one(self, executor: Executor, aggregate_id: UUID) -> LoadedAggregate:
        """Return one aggregate.

        Raises:
            AggregateNotFound: This domain has no such aggregate.
        """
        found = (await self.load(executor, [(aggregate_id, None)]))[aggregate_id].aggregate
        if found is None:
            raise AggregateNotFound(aggregate_id)
        return found

    async def record(self, executor: Executor, decisions: Sequence[Decision], *, creates: bool) -> set[UUID]:
        """Write *decisions*, at most one per aggregate; return the ids of the written aggregates.

        If an aggregate has another version now than when it was loaded, its decision is not written, and the
        result does not contain the aggregate's id.

        Args:
            executor: A connection, or the session of the caller's transaction.
            decisions: Decisions of one kind: all create their aggregate, or none does.
            creates: Whether the decisions create their aggregates.

        Raises:
            RetryTransaction: Another transaction won the race for an aggregate or key; nothing was written.
            ConstraintViolated: Another constraint, such as one of the domain's own table, rejects a decision.
            PayloadInvalid: PostgreSQL cannot store the payload of a command or of an event.
        """
        text = self.create_text if creates else self.advance_text
        with map_database_errors(), map_constraint_errors(decisions[0].command.command_type):
            rows = await executor.fetch(text, *_arguments(decisions), *self._claims(decisions))
        return {row["id"] for row in rows}

    @staticmethod
    def _claims(decisions: Sequence[Decision]) -> tuple[Any, ...]:
        keyed = [(d, d.command.keyed_response) for d in decisions if d.command.keyed_response is not None]
        kept = [
            split_body(stored_result(one.build_response(decision.result()), one.claim))
            for decision, one in keyed
        ]
        return (
            [
                decision.command.keyed_response and decision.command.keyed_response.claim.key
                for decision in decisions
            ],
            [decision.command.aggregate_id for decision, _ in keyed],
            [one.claim.stored_key for _, one in keyed],
            [document for document, _ in kept],
            [one.claim.ttl_s for _, one in keyed],
            [body for _, body in kept],
        )


@contextmanager
def map_constraint_errors(command_type: str) -> Generator[None]:
    """Map PostgreSQL's errors in the ``with`` block, which writes commands of *command_type*.

    Raises:
        RetryTransaction: A constraint shows that another command won a race.
        ConstraintViolated: Another constraint is violated.
        PayloadInvalid: PostgreSQL cannot store the payload.
    """
    try:
        yield
    except Exception as error:
        state, constraint = sqlstate_of(error) or "", constraint_of(error)
        if constraint in _RACE_CONSTRAINTS:
            raise RetryTransaction(
                f"another command with the same aggregate or key was first ({constraint}); "
                "repeat the whole transaction"
            ) from error
        if state.startswith(_INTEGRITY_CLASS):
            raise ConstraintViolated(command_type, constraint) from error
        if state.startswith(_DATA_CLASS):
            detail = Detail(
                field="payload",
                message=f"PostgreSQL cannot store the payload (SQLSTATE {state}); remove or correct the "
                "value that is too long or out of range",
            )
            raise PayloadInvalid(command_type, [detail]) from error
        raise


def _arguments(decisions: Sequence[Decision]) -> tuple[Any, ...]:
    commands = [decision.command for decision in decisions]
    events = [(d, event_id, envelope) for d in decisions for event_id, envelope in d.events]
    ends = [(d.command.aggregate_id, settlement) for d in decisions for settlement in d.settlements]
    return (
        f"[{','.join(decision.snapshot for decision in decisions)}]",
        [command.command_id for command in commands],
        [command.aggregate_id for command in commands],
        [command.command_type for command in commands],
        [decision.payload for decision in decisions],
        [decision.status.value for decision in decisions],
        [event_id for _, event_id, _ in events],
        [decision.command.aggregate_id for decision, _, _ in events],
        [decision.topic for decision, _, _ in events],
        [envelope for _, _, envelope in events],
        [aggregate_id for aggregate_id, _ in ends],
        [end.command_id for _, end in ends],
        [end.command_status.value for _, end in ends],
        [end.task_status.value for _, end in ends],
        [_json(end.result) for _, end in ends],
        [_json(end.error) for _, end in ends],
    )


def _json(document: Mapping[str, Any] | None) -> str | None:
    return None if document is None else to_json(document).decode()
