"""Compute, read and write the rows of sessions for ``backend rebuild genesis``."""

from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from pydantic import ValidationError
from pydantic_core import from_json, to_json
from relaybox.commands import Event
from relaybox.db import Executor, RetryTransaction
from relaybox.events import RecordedEvent

from backend.genesis._state import GenesisSession
from backend.genesis.session import SQL, genesis
from backend.rebuilding import Projection, RowChange

__all__ = ("SessionProjection",)

#: The query returns the state as text, because some connections decode JSON values and others do not.
_READ: Final = SQL.including("read", load=SQL["load"])

Document = dict[str, Any]


class SessionProjection(Projection[GenesisSession, Document]):
    """The projection of sessions: the row of a session, as the JSON document that commands read.

    An empty document stands for a session without a row.
    """

    aggregate_type = genesis.aggregate_type
    event_types = genesis.event_types
    noun = "session"
    no_rows: Document = {}  # noqa: RUF012 - never changed

    def apply(self, state: GenesisSession | None, event: RecordedEvent, *, erased: bool) -> GenesisSession:
        """Return the session after *event*.

        The owner is the user id in the metadata of the first event, which remains there after an erasure.
        """
        owner = event.metadata.get("user_id", "")
        state = state or GenesisSession(id=UUID(event.aggregate_id), owner=owner)
        recorded = Event(type=event.type, event_version=event.event_version, payload=event.payload)
        after = state.without_content() if erased else state.apply(recorded)
        return after.model_copy(update={"version": event.version})

    def rows_of(self, state: GenesisSession) -> Document:
        """Return the document of the session's row."""
        return state.model_dump(mode="json")

    def differing_parts(self, change: RowChange[Document]) -> tuple[str, ...]:
        """Return the names of the columns that differ; empty if there is no row, or no event."""
        if not change.stored:
            return ()
        return tuple(name for name, value in change.rebuilt.items() if change.stored.get(name) != value)

    async def read(self, executor: Executor, aggregate_ids: Sequence[UUID]) -> Mapping[UUID, Document]:
        """Read the rows of sessions, by aggregate id."""
        rows = await executor.fetch(_READ, aggregate_ids)
        return {row["id"]: _with_defaults(from_json(row["state"])) for row in rows}

    async def write(self, executor: Executor, changes: Sequence[RowChange[Document]]) -> None:
        """Create, update or delete the row of each session.

        Raises:
            RetryTransaction: The row has another version than the version that :meth:`read` returned.
        """
        for change in changes:
            version = change.stored.get("version")
            if change.rebuilt:
                row = {**change.rebuilt, "expected_version": version, "created_at": change.created_at}
                query = SQL["advance" if change.stored else "create"]
                rows = await executor.fetch(query, to_json([row]).decode())
            else:
                rows = await executor.fetch(SQL["discard"], change.aggregate_id, version)
            if not rows:
                raise RetryTransaction(
                    f"session {change.aggregate_id} was changed during the repair; repeat the transaction"
                )

    async def ids_without_events(self, executor: Executor, after: UUID, limit: int) -> list[UUID]:
        """Return up to *limit* ids above *after* of sessions that have a row but no events."""
        return [row["id"] for row in await executor.fetch(SQL["without_events_page"], after, limit)]


def _with_defaults(document: Document) -> Document:
    """Return *document* with default values for missing fields, which later releases have added.

    A document that is not a valid session is returned unchanged, so that the comparison reports a difference.
    """
    try:
        return GenesisSession.model_validate(document).model_dump(mode="json")
    except ValidationError:
        return document
