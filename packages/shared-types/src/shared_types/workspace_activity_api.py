"""Answers about what has happened to a node."""

from typing import Annotated
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, Field

from shared_types.events import EventTarget
from shared_types.workspace import WorkspaceEvent

__all__ = ("Activity", "ActivityPage", "ActivityTarget")


class ActivityTarget(BaseModel):
    """What somebody did something to."""

    type: EventTarget
    id: str


class Activity(BaseModel):
    """One thing that somebody did to a node, or to what belongs to it."""

    event_id: UUID
    #: Of the node's stream, where it has the same number.
    version: Annotated[int, Field(ge=1)]
    type: WorkspaceEvent
    #: Null where it is not known any more.
    actor: str | None
    at: AwareDatetime
    target: ActivityTarget
    #: What the actor did, in a few English words without a subject: "added the move g1f3".
    summary: str
    #: What it was about was purged; that it happened is all that is known.
    erased: bool = False


class ActivityPage(BaseModel):
    """A page of what has happened, newest first."""

    items: list[Activity]
    #: Null on the last page.
    next_cursor: str | None = None
