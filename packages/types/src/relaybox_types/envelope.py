"""Define the event envelope: the value of ``event_outbox.payload`` and of a Kafka message.

Each field is described in docs/reference/events.md.
"""

from datetime import UTC, datetime
from typing import Annotated, Any, Self
from uuid import UUID, uuid4

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

__all__ = ("EventEnvelope", "build_event_envelope")

Name = Annotated[str, Field(min_length=1, max_length=255)]


class EventEnvelope(BaseModel):
    """One event with its identity, its aggregate, and its place in a chain of events.

    ``correlation_id`` is the id of the first command of the chain, and is the same for all events of the
    chain. ``causation_id`` is the id of the event that caused this event, null for the first event of the
    chain (G08).
    """

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    event_id: UUID
    event_type: Name
    #: Version of the payload's schema; readers must convert payloads of older versions.
    event_version: Annotated[int, Field(ge=1)] = 1
    aggregate_type: Name
    aggregate_id: Name
    correlation_id: UUID
    causation_id: UUID | None
    #: The ``sub`` of the sender's token, or the name of a service; null if unknown.
    actor_id: str | None = None
    #: Id of the object that the event is about.
    target_id: str | None = None
    #: Kind of the object that the event is about; each application defines its values.
    target_type: Name = "OTHER"
    timestamp: AwareDatetime
    #: Version of the aggregate after this event: 1, 2, 3, … without gaps.
    version: Annotated[int, Field(ge=1)]
    payload: dict[str, Any] = Field(default_factory=dict)
    metadata: dict[str, Any] = Field(default_factory=dict)

    @property
    def erased(self) -> bool:
        """Whether the content of this event was erased before the event was published."""
        return self.payload == {"erased": True}

    @model_validator(mode="after")
    def _is_not_its_own_cause(self) -> Self:
        if self.causation_id == self.event_id:
            raise ValueError(
                "an event cannot be its own cause: causation_id equals event_id; set causation_id to the id "
                "of the causing event, or to null"
            )
        return self


def build_event_envelope(
    *,
    event_type: str,
    aggregate_type: str,
    aggregate_id: str,
    version: int,
    correlation_id: UUID,
    causation_id: UUID | None = None,
    payload: dict[str, Any] | None = None,
    metadata: dict[str, Any] | None = None,
    actor_id: str | None = None,
    target_id: str | None = None,
    target_type: str = "OTHER",
    event_version: int = 1,
    event_id: UUID | None = None,
    timestamp: datetime | None = None,
) -> EventEnvelope:
    """Create an envelope; by default with a new id, the present time, and the aggregate as target.

    Raises:
        pydantic.ValidationError: A name or *aggregate_id* is empty or longer than 255 characters, a version
            is below 1, the time has no time zone, or *causation_id* equals *event_id*.
    """
    return EventEnvelope(
        event_id=event_id or uuid4(),
        event_type=event_type,
        event_version=event_version,
        aggregate_type=aggregate_type,
        aggregate_id=aggregate_id,
        correlation_id=correlation_id,
        causation_id=causation_id,
        actor_id=actor_id,
        target_id=target_id or aggregate_id,
        target_type=target_type,
        timestamp=timestamp or datetime.now(UTC),
        version=version,
        payload=payload or {},
        metadata=metadata or {},
    )
