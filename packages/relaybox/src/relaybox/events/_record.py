"""A recorded event as the library reads it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self
from uuid import UUID

from pydantic_core import from_json

__all__ = ("RecordedEvent",)


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordedEvent:
    """An event as recorded in ``domain_events``."""

    event_id: UUID
    correlation_id: UUID | None
    #: The event that caused this one; null for the first of its chain.
    causation_id: UUID | None
    type: str
    event_version: int
    aggregate_type: str
    aggregate_id: str
    #: Gapless per aggregate: the cursor of its stream.
    version: int
    payload: dict[str, Any]
    metadata: dict[str, Any]
    created_at: datetime

    @property
    def erased(self) -> bool:
        """Whether its content was erased (:func:`relaybox.events.erase`): that it happened is all it says."""
        return self.payload == {"erased": True}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """Return the event in a row of this package's queries."""
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
