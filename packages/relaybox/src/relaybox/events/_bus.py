"""Publish an event once, in the caller's transaction."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Final
from uuid import UUID

from relaybox_types.envelope import EventEnvelope
from sqlalchemy.ext.asyncio import AsyncSession

from relaybox.db import RetryTransaction, executor_of, load_queries, map_database_errors, sqlstate_of
from relaybox.events._errors import EventIdReused
from relaybox.events._ids import event_uuid
from relaybox.events._record import RecordedEvent
from relaybox.outbox import EventIncomplete, notify_on_commit, validate_event

__all__ = ("EventBus",)

_SQL: Final = load_queries(__package__ or "relaybox.events", "events.sql")
_DATA_CLASS: Final = "22"


class EventBus:
    """Publish events in the transaction of *db*: each is recorded with its outbox row, or neither is.

    Invariant: one event is recorded per ``event_id``, with one row in the outbox, and every call with this id
    returns that event, at any isolation level:

    * READ COMMITTED: a call waits while another transaction publishes the same id. If that transaction
      commits, the call returns the event recorded by it; otherwise the call records the event.
    * REPEATABLE READ, SERIALIZABLE: the same, but a transaction that began before the other one committed
      cannot see the other's event. The call then raises :class:`~relaybox.db.RetryTransaction`, on which
      ``Database.run_in_transaction`` repeats the transaction.

    Not for aggregates that commands change: their version is in a snapshot, which an event published here
    does not advance.
    """

    def __init__(self, db: AsyncSession, *, topic: str = "domain-events") -> None:
        """Publish to *topic*, one of ``OUTBOX_TOPICS``; ``OUTBOX_ROUTES`` applies to ``domain-events``."""
        self._db = db
        self._topic = topic

    async def publish(
        self,
        event: EventEnvelope,
        event_id: UUID | str | None = None,
        correlation_id: UUID | str | None = None,
        causation_id: UUID | str | None = None,
    ) -> RecordedEvent:
        """Record *event*, or return the event already recorded with this id; takes effect if *db* commits.

        Ids passed as arguments replace those of the envelope. :func:`~relaybox.events.event_uuid` maps an id
        that is not a UUID, so that ``causation_id`` can be the same text as the ``event_id`` of the cause.

        A repetition must have the same content as the recorded event: ``event_type``, ``event_version``,
        ``aggregate_type``, ``aggregate_id`` and ``payload`` (compared as JSONB: 1.0 equals 1, the order of
        names does not matter), and ``correlation_id`` and ``causation_id`` if passed as arguments. Not
        compared are values that a repeated request creates again (``timestamp``, ``metadata``, ``version``,
        ids of the envelope) and values that ``domain_events`` does not store (``actor_id``, target).

        The event's ``version`` must be the next of its aggregate; read the last one in the same transaction.

        Raises:
            EventIdReused: An event with another content is recorded under this id.
            EventIdInvalid: See :func:`~relaybox.events.event_uuid`.
            EventIncomplete, TopicUndeclared, MessageTooLarge: See :func:`relaybox.outbox.save_to_outbox`.
            RetryTransaction: Another transaction recorded the same version or id, or this one does not see
                the preceding version: roll back, and repeat the whole transaction, including the query
                of the last version.
            DatabaseBusy: Another transaction with the same id did not end in time.
            DatabaseUnavailable: PostgreSQL is unreachable.
        """
        given = {"event_id": event_id, "correlation_id": correlation_id, "causation_id": causation_id}
        ids = {name: event_uuid(one) for name, one in given.items() if one is not None}
        event = event.model_copy(update=ids)
        topic, value = validate_event(self._topic, event.aggregate_id, event.model_dump())
        executor = executor_of(self._db)
        with map_database_errors(), _map_data_errors():
            rows = await executor.fetch(_SQL["publish"], topic, event.aggregate_id, value)
            if rows:
                notify_on_commit(self._db, event.aggregate_id)
                return RecordedEvent.from_row(rows[0])
            rows = await executor.fetch(_SQL["published"], event.event_id, value)
        if not rows:
            raise RetryTransaction(
                f"version {event.version} of {event.aggregate_type} {event.aggregate_id!r} is not the next: "
                "read the last version in the publishing transaction, and repeat the transaction"
            )
        recorded = RecordedEvent.from_row(rows[0])
        differences = _differences(recorded, event, ids, same_payload=rows[0]["same_payload"])
        if differences:
            raise EventIdReused(event.event_id, differences)
        return recorded


def _differences(
    recorded: RecordedEvent, event: EventEnvelope, ids: dict[str, UUID], *, same_payload: bool
) -> dict[str, str]:
    """Return a description of each field in which *event* differs from *recorded*.

    Args:
        recorded: The event in ``domain_events``.
        event: The event to publish.
        ids: Ids passed as arguments; only these are compared.
        same_payload: Whether PostgreSQL found the payloads equal.
    """
    pairs: dict[str, tuple[object, object]] = {
        "event_type": (recorded.type, event.event_type),
        "event_version": (recorded.event_version, event.event_version),
        "aggregate_type": (recorded.aggregate_type, event.aggregate_type),
        "aggregate_id": (recorded.aggregate_id, event.aggregate_id),
    }
    if "correlation_id" in ids:
        pairs["correlation_id"] = (recorded.correlation_id, event.correlation_id)
    if "causation_id" in ids:
        pairs["causation_id"] = (recorded.causation_id, event.causation_id)
    found = {
        name: f"{name} is {str(there)!r}, not {str(here)!r}"
        for name, (there, here) in pairs.items()
        if there != here
    }
    return found if same_payload else {**found, "payload": "the payload differs"}


@contextmanager
def _map_data_errors() -> Generator[None]:
    try:
        yield
    except Exception as error:
        state = sqlstate_of(error) or ""
        if state.startswith(_DATA_CLASS):
            raise EventIncomplete(
                f"PostgreSQL cannot store the event (SQLSTATE {state}); remove NaN and too large numbers"
            ) from error
        raise
