"""The event envelope: what ``event_outbox.payload`` holds and Kafka carries (contract, section 3)."""

from datetime import UTC, datetime
from typing import Annotated, Any, Self
from uuid import UUID, uuid4

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

__all__ = ("EventEnvelope", "build_event_envelope")

Name = Annotated[str, Field(min_length=1, max_length=255)]


class EventEnvelope(BaseModel):
    """One fact with everything a reader needs to place it.

    ``correlation_id`` is the id of the first command of the business process and never changes
    along the chain; ``causation_id`` is the event this one was caused by, null for the first (G08).
    """

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    event_id: UUID
    event_type: Name
    #: Version of the payload's shape; readers upcast old ones, names never change.
    event_version: Annotated[int, Field(ge=1)] = 1
    aggregate_type: Name
    aggregate_id: Name
    correlation_id: UUID
    causation_id: UUID | None
    #: Who did it: the token's ``sub``, or the name of a service.
    actor_id: str | None = None
    target_id: str | None = None
    #: What kind of thing ``target_id`` names; an application has its own words for it.
    target_type: Name = "OTHER"
    timestamp: AwareDatetime
    #: The aggregate's version after this event; gapless per aggregate.
    version: Annotated[int, Field(ge=1)]
    payload: dict[str, Any] = Field(default_factory=dict)
    metadata: dict[str, Any] = Field(default_factory=dict)

    @property
    def erased(self) -> bool:
        """Whether the content of this event was erased before it was published."""
        return self.payload == {"erased": True}

    @model_validator(mode="after")
    def _is_not_its_own_cause(self) -> Self:
        if self.causation_id == self.event_id:
            raise ValueError("an event cannot be its own cause: causation_id equals event_id")
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
    """Make an envelope; id and time are filled in, the target is the aggregate unless told otherwise.

    Raises:
        pydantic.ValidationError: a field is empty, too long, or the time has no zone.
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
