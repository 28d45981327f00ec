"""Publishing an event once, inside the caller's transaction."""

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
    """Publishes events in the transaction of *db*: recorded and on their way to Kafka, or neither.

    Invariant: of all that is ever published under one ``event_id``, one event is recorded, and has one row
    in the outbox; everybody gets that one. It holds whatever the isolation:

    * READ COMMITTED: who publishes while another transaction publishes the same id waits for its end, and
      then gets its event, or records its own if the other rolled back.
    * REPEATABLE READ, SERIALIZABLE: the same, but who began before the other committed cannot see its event
      and gets :class:`~relaybox.db.RetryTransaction`, on which ``Database.run_in_transaction`` runs it again.

    Not for aggregates that commands own: the commands keep the version in a snapshot, which an event
    published beside them does not move.
    """

    def __init__(self, db: AsyncSession, *, topic: str = "domain-events") -> None:
        """*topic* must be declared in ``OUTBOX_TOPICS``; ``domain-events`` is routed by ``OUTBOX_ROUTES``."""
        self._db = db
        self._topic = topic

    async def publish(
        self,
        event: EventEnvelope,
        event_id: UUID | str | None = None,
        correlation_id: UUID | str | None = None,
        causation_id: UUID | str | None = None,
    ) -> RecordedEvent:
        """Record *event*, or return what is recorded under its id; it counts if, and only if, *db* commits.

        The ids given here stand in for the envelope's; one that is no UUID is mapped by
        :func:`~relaybox.events.event_uuid`, so a cause may be named as it was published.

        A repetition must have the content of the recorded event: ``event_type``, ``event_version``,
        ``aggregate_type``, ``aggregate_id`` and ``payload`` (as JSONB compares: 1.0 is 1, the order of names
        does not matter), and ``correlation_id`` and ``causation_id`` where given here. What whoever
        repeats a request makes anew does not count: ``timestamp``, ``metadata``, the ids that only the
        envelope has, and ``version``, which was read again after the event had moved it. ``actor_id`` and
        the target do not either: ``domain_events`` does not keep them.

        The event's ``version`` must be the next of its aggregate, so that streams have no gaps; read it
        in the same transaction.

        Raises:
            EventIdReused: another content is recorded under this id.
            EventIdInvalid: see :func:`~relaybox.events.event_uuid`.
            EventIncomplete, TopicUndeclared, MessageTooLarge: see :func:`relaybox.outbox.save_to_outbox`.
            RetryTransaction: another transaction was faster, or ``version`` is not the next that this one
                sees; roll back and run all of it again, the reading of the version too.
            DatabaseBusy: another transaction with the same id did not end in time.
            DatabaseUnavailable: PostgreSQL is away.
        """
        given = {"event_id": event_id, "correlation_id": correlation_id, "causation_id": causation_id}
        ids = {name: event_uuid(one) for name, one in given.items() if one is not None}
        event = event.model_copy(update=ids)
        topic, value = validate_event(self._topic, event.aggregate_id, event.model_dump())
        executor = executor_of(self._db)
        with map_database_errors(), _named_refusal():
            rows = await executor.fetch(_SQL["publish"], topic, event.aggregate_id, value)
            if rows:
                notify_on_commit(self._db, event.aggregate_id)
                return RecordedEvent.from_row(rows[0])
            rows = await executor.fetch(_SQL["published"], event.event_id, value)
        if not rows:
            raise RetryTransaction(
                f"version {event.version} of {event.aggregate_type} {event.aggregate_id!r} is not the next: "
                "read the version in the transaction that publishes, and run it again"
            )
        recorded = RecordedEvent.from_row(rows[0])
        differences = _differences(recorded, event, ids, same_payload=rows[0]["same_payload"])
        if differences:
            raise EventIdReused(event.event_id, differences)
        return recorded


def _differences(
    recorded: RecordedEvent, event: EventEnvelope, ids: dict[str, UUID], *, same_payload: bool
) -> dict[str, str]:
    """How *event* differs from *recorded*, by field; *ids* are those that were given beside the envelope."""
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
def _named_refusal() -> Generator[None]:
    try:
        yield
    except Exception as error:
        state = sqlstate_of(error) or ""
        if state.startswith(_DATA_CLASS):
            raise EventIncomplete(
                f"PostgreSQL cannot store the event ({state}); look for NaN, or a number that is too large"
            ) from error
        raise
