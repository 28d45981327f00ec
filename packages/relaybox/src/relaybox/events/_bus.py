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
#: First characters of the SQLSTATEs by which PostgreSQL rejects a value, such as a number out of range.
_DATA_CLASS: Final = "22"


class EventBus:
    """Publish events in the caller's transaction: an event and its outbox row are committed together.

    Invariant: one event is recorded per ``event_id``, with one row in the outbox. Every call of
    :meth:`publish` with this id returns that event, at any isolation level:

    * READ COMMITTED: the call waits while another transaction publishes the same id. If the other transaction
      commits, the call returns its event; otherwise the call records the event.
    * REPEATABLE READ, SERIALIZABLE: the call waits too. If the other transaction commits after the caller's
      transaction began, the caller cannot see its event. The call then raises
      :class:`~relaybox.db.RetryTransaction`, and ``Database.run_in_transaction`` repeats the transaction.

    Do not publish events of an aggregate that commands change: its version is in a snapshot, and
    :meth:`publish` does not change snapshots.
    """

    def __init__(self, db: AsyncSession, *, topic: str = "domain-events") -> None:
        """Create a bus for one transaction.

        Args:
            db: Session of the caller's transaction; the caller commits.
            topic: One of ``OUTBOX_TOPICS``. ``OUTBOX_ROUTES`` may replace ``domain-events`` by another topic.
        """
        self._db = db
        self._topic = topic

    async def publish(
        self,
        event: EventEnvelope,
        event_id: UUID | str | None = None,
        correlation_id: UUID | str | None = None,
        causation_id: UUID | str | None = None,
    ) -> RecordedEvent:
        """Record *event*, or return the event that is already recorded with this id.

        The event is published if, and only if, the caller's transaction commits. ``event.version`` must be
        the last version of the aggregate plus 1; the caller reads the last version in the same transaction.

        If an event is already recorded with this id, both must be equal in ``event_type``, ``event_version``,
        ``aggregate_type``, ``aggregate_id`` and ``payload`` (compared as JSONB: 1.0 equals 1, the order of
        names does not matter), and in ``correlation_id`` and ``causation_id`` if these are arguments. Values
        that differ in each repetition are not compared (``timestamp``, ``metadata``, ``version``, ids in the
        envelope), nor values that ``domain_events`` does not store (``actor_id``, target).

        Args:
            event: The envelope.
            event_id: Replaces the id in the envelope; None keeps it. Text that is not a UUID is mapped by
                :func:`~relaybox.events.event_uuid`.
            correlation_id: As *event_id*.
            causation_id: As *event_id*; so it can be the text that was the ``event_id`` of the cause.

        Raises:
            EventIdReused: An event with another content is recorded under this id.
            EventIdInvalid: See :func:`~relaybox.events.event_uuid`.
            EventIncomplete, TopicUndeclared, MessageTooLarge: See :func:`relaybox.outbox.save_to_outbox`.
            RetryTransaction: Another transaction recorded the same version or id, or the caller's transaction
                does not see the preceding version. Roll back, and repeat the whole transaction, including the
                query of the last version.
            DatabaseBusy: Another transaction with the same id did not end in time.
            DatabaseUnavailable: PostgreSQL is unreachable.
        """
        given = {"event_id": event_id, "correlation_id": correlation_id, "causation_id": causation_id}
        ids = {name: event_uuid(one) for name, one in given.items() if one is not None}
        event = event.model_copy(update=ids)
        topic, value = validate_event(self._topic, event.aggregate_id, event.model_dump())
        executor = executor_of(self._db)
        with map_database_errors(), _map_data_errors(event.event_id):
            rows = await executor.fetch(_SQL["publish"], topic, event.aggregate_id, value)
            if rows:
                notify_on_commit(self._db, event.aggregate_id)
                return RecordedEvent.from_row(rows[0])
            rows = await executor.fetch(_SQL["published"], event.event_id, value)
        if not rows:
            raise RetryTransaction(
                f"event {event.event_id} cannot be version {event.version} of {event.aggregate_type} "
                f"{event.aggregate_id!r}: this version or this event is recorded already, or the version "
                "before is not visible; read the last version in the publishing transaction, and repeat the "
                "transaction"
            )
        recorded = RecordedEvent.from_row(rows[0])
        differences = _differences(recorded, event, ids, same_payload=rows[0]["same_payload"])
        if differences:
            raise EventIdReused(event.event_id, differences)
        return recorded


def _differences(
    recorded: RecordedEvent, event: EventEnvelope, ids: dict[str, UUID], *, same_payload: bool
) -> dict[str, str]:
    """Return, by field name, a description of each field in which *event* differs from *recorded*.

    Args:
        recorded: The event in ``domain_events``.
        event: The event to publish.
        ids: Ids that the caller of ``publish`` passed as arguments; ids of the envelope are not compared.
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
    return found if same_payload else {**found, "payload": "the payload differs from the recorded payload"}


@contextmanager
def _map_data_errors(event_id: UUID) -> Generator[None]:
    try:
        yield
    except Exception as error:
        state = sqlstate_of(error) or ""
        if state.startswith(_DATA_CLASS):
            raise EventIncomplete(
                f"PostgreSQL rejects the data of event {event_id} (SQLSTATE {state}); check its payload for "
                "numbers out of range and invalid text"
            ) from error
        raise
