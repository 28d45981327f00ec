"""Loading what decisions need and writing what they decided: two statements."""

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
    StoredResponse,
    delete_expired,
    load_stored_response,
    split_body,
    stored_result,
)

__all__ = ("CommandLookup", "Statements", "map_constraint_errors")

#: Indexes on which two commands meet that raced for one aggregate; any other belongs to the domain.
_RACE_CONSTRAINTS: Final = frozenset(
    {
        "idx_command_inbox_unique_pending_command",
        "domain_events_aggregate_version_key",
        "idempotency_cache_pkey",
    }
)
_INTEGRITY_CLASS: Final = "23"
_DATA_CLASS: Final = "22"

_SQL: Final = load_queries(__package__ or "relaybox.commands", "commands.sql")


@dataclass(frozen=True, kw_only=True, slots=True)
class CommandLookup:
    """What is there for a command."""

    #: Who owns the aggregate; null if there is none of this domain.
    owner: str | None
    #: Null if there is none, or if the command's key has a stored response.
    aggregate: LoadedAggregate | None
    #: The response stored under the command's key; None without one.
    stored_response: StoredResponse | None


class Statements:
    """The two statements of the command path for one domain; every call is one round-trip."""

    def __init__(self, domain: Domain[Any]) -> None:
        self._aggregate_type = domain.aggregate_type
        self.load_text = _SQL.including("load", load=domain.snapshots.load)
        self.create_text = _SQL.including("record", snapshot=domain.snapshots.create)
        self.advance_text = _SQL.including("record", snapshot=domain.snapshots.advance)

    async def load(
        self, executor: Executor, asked: Sequence[tuple[UUID, str | None]]
    ) -> Mapping[UUID, CommandLookup]:
        """What is there for commands, by aggregate; *asked* are these, each with its stored key or None.

        One round-trip; more where a kept body is large, or an expired answer has to make room.
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
        """One aggregate.

        Raises:
            AggregateNotFound: there is none of this domain.
        """
        found = (await self.load(executor, [(aggregate_id, None)]))[aggregate_id].aggregate
        if found is None:
            raise AggregateNotFound(aggregate_id)
        return found

    async def record(self, executor: Executor, decisions: Sequence[Decision], *, creates: bool) -> set[UUID]:
        """Write *decisions*, at most one per aggregate; returns the aggregates that were written.

        One that is missing had moved on: nothing of its decision was written.

        Raises:
            RetryTransaction: somebody else won the race for one of them; nothing was written.
            ConstraintViolated: a constraint of the domain's own table refuses one of them.
            PayloadInvalid: one of them holds what PostgreSQL cannot store.
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
    """Turn what PostgreSQL refuses of *command_type* into the errors of this package."""
    try:
        yield
    except Exception as error:
        state, constraint = sqlstate_of(error) or "", constraint_of(error)
        if constraint in _RACE_CONSTRAINTS:
            raise RetryTransaction(f"another command won the race ({constraint}); run it again") from error
        if state.startswith(_INTEGRITY_CLASS):
            raise ConstraintViolated(command_type, constraint) from error
        if state.startswith(_DATA_CLASS):
            detail = Detail(field="payload", message=f"PostgreSQL cannot store it ({state})")
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
