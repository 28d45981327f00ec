"""Requests and answers of the workspace's nodes; what a body leaves out keeps its value."""

import re
from typing import Annotated, Any, Final
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from shared_types.workspace import NodeKind, Role, Visibility

__all__ = (
    "UNPRINTABLE",
    "CreateNode",
    "Layout",
    "MoveNode",
    "NodeDetail",
    "NodePage",
    "NodePlace",
    "NodeTree",
    "NodeView",
    "OneLine",
    "TreeNode",
    "UpdateNode",
    "printable",
)

#: Controls, separators of lines, and what overrides or isolates the direction of a text (Unicode UAX 9).
UNPRINTABLE: Final = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u2028\\u2029\\u202a-\\u202e\\u2066-\\u2069]")
"""A character that a title does not have."""


def printable(text: str) -> str:
    """Return *text* if it has no character of `UNPRINTABLE`.

    Raises:
        ValueError: It has one; the message names it.
    """
    if found := UNPRINTABLE.search(text):
        raise ValueError(
            f"the character U+{ord(found[0]):04X} is not allowed: a title is one line, without control "
            "characters and without overrides of the direction of text; remove it"
        )
    return text


OneLine = AfterValidator(printable)
"""A text that is shown in one line, in the direction that its letters have."""
Title = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200), OneLine]
Description = Annotated[str, StringConstraints(max_length=10_000)]
#: Fits PostgreSQL's integer with room behind it.
Position = Annotated[int, Field(ge=0, le=1_000_000_000)]
_Coordinate = Annotated[float, Field(ge=-1e9, le=1e9, allow_inf_nan=False)]


class _Request(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Layout(_Request):
    """Where a client draws a node."""

    x: _Coordinate | None = None
    y: _Coordinate | None = None
    z: _Coordinate | None = None
    group: Annotated[str, StringConstraints(max_length=200)] | None = None
    view_mode: Annotated[str, StringConstraints(max_length=50)] | None = None


class CreateNode(_Request):
    """``POST /nodes``."""

    kind: NodeKind
    title: Title
    #: Null makes a root, which belongs to who makes it; a workspace is always one.
    parent_id: UUID | None = None
    description: Description = ""
    layout: Layout | None = None
    #: Null: as the parent's; a root is ``shared`` unless told otherwise.
    visibility: Visibility | None = None
    #: Among its siblings; null: behind the last.
    position: Position | None = None


class UpdateNode(_Request):
    """``PATCH /nodes/{id}``; a visibility of null inherits the parent's."""

    title: Title | None = None
    description: Description | None = None
    layout: Layout | None = None
    visibility: Visibility | None = None


class MoveNode(_Request):
    """``POST /nodes/{id}/move``."""

    #: Null makes it a root.
    parent_id: UUID | None
    position: Position | None = None


class NodeView(BaseModel):
    """A node as it is shown."""

    id: UUID
    kind: NodeKind
    #: Null for a root, and where the caller may not read the parent.
    parent_id: UUID | None
    title: str
    description: str
    position: int
    layout: dict[str, Any] | None
    #: As it holds here, inherited or not.
    visibility: Visibility
    #: What ``If-Match`` compares; also the ETag.
    version: int
    created_by: str
    created_at: AwareDatetime
    changed_at: AwareDatetime


class NodePlace(BaseModel):
    """One step of the way from the root to a node."""

    id: UUID
    title: str


class NodeDetail(NodeView):
    """A node with its place and what the reader may do on it."""

    role: Role
    #: From the topmost ancestor that the reader may see down to the parent.
    path: list[NodePlace]


class NodePage(BaseModel):
    """A page of nodes."""

    items: list[NodeView]
    #: Null on the last page.
    next_cursor: str | None = None


class TreeNode(NodeView):
    """A node of a tree, with its level below the tree's root."""

    depth: int


class NodeTree(BaseModel):
    """A node and what is below it, parents before their children, siblings in their order."""

    items: list[TreeNode]
