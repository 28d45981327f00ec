"""Define response bodies of the activity of a node: the list of its changes."""

from typing import Annotated
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, Field

from shared_types.events import EventTarget
from shared_types.workspace import WorkspaceEvent

__all__ = ("Activity", "ActivityPage", "ActivityTarget")


class ActivityTarget(BaseModel):
    """The object that was changed."""

    type: EventTarget
    id: str


class Activity(BaseModel):
    """One change of a node, or of a chapter, discussion, grant or link of the node."""

    event_id: UUID
    #: Position of the event in the node's event stream, from 1.
    version: Annotated[int, Field(ge=1)]
    type: WorkspaceEvent
    #: Id of the user that made the change, or name of the service. An erasure keeps this id. Null if the
    #: event was recorded without an actor.
    actor: str | None
    at: AwareDatetime
    target: ActivityTarget
    #: The change in a few English words without a subject: "added the move Nf3".
    summary: str
    #: Whether the content of the event was erased, because the object was purged.
    erased: bool = False


class ActivityPage(BaseModel):
    """A page of activities, newest first."""

    items: list[Activity]
    #: Null on the last page.
    next_cursor: str | None = None
