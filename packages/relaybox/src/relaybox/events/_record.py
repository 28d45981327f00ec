"""An event as read from ``domain_events``."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self
from uuid import UUID

from pydantic_core import from_json

__all__ = ("RecordedEvent",)


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordedEvent:
    """A row of ``domain_events``."""

    event_id: UUID
    #: Id of the chain: the same for all events that one request caused; None if the writer set none.
    correlation_id: UUID | None
    #: Id of the event that caused this event; None for the first event of a chain.
    causation_id: UUID | None
    type: str
    event_version: int
    aggregate_type: str
    aggregate_id: str
    #: Number of the event within its aggregate: 1, 2, 3 … without gaps.
    version: int
    payload: dict[str, Any]
    metadata: dict[str, Any]
    created_at: datetime

    @property
    def erased(self) -> bool:
        """Whether :func:`relaybox.events.erase` removed the content; type, time and aggregate remain."""
        return self.payload == {"erased": True}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """Return the event in *row*, a result of a query of ``events.sql``."""
        return cls(
            event_id=row["event_id"],
            correlation_id=row["correlation_id"],
            causation_id=row["causation_id"],
            type=row["event_type"],
            event_version=row["event_version"],
            aggregate_type=row["aggregate_type"],
            aggregate_id=row["aggregate_id"],
            version=row["aggregate_version"],
            payload=from_json(row["payload"]) if row["payload"] else {},
            metadata=from_json(row["metadata"]) if row["metadata"] else {},
            created_at=row["created_at"],
        )
