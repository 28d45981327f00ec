"""Define request and response bodies of nodes; fields that a request omits keep their value."""

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

#: Control characters, line separators, and overrides and isolates of text direction (Unicode UAX 9).
UNPRINTABLE: Final = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u2028\\u2029\\u202a-\\u202e\\u2066-\\u2069]")
"""A character that is not allowed in a title."""


def printable(text: str) -> str:
    """Return *text* if it has no character that `UNPRINTABLE` matches.

    Raises:
        ValueError: *text* has such a character; the message names the character.
    """
    if found := UNPRINTABLE.search(text):
        raise ValueError(
            f"the character U+{ord(found[0]):04X} is not allowed: a title is one line, without control "
            "characters and without overrides of the direction of text; remove it"
        )
    return text


OneLine = AfterValidator(printable)
"""Validator that refuses a text of several lines, and a text that overrides the direction of text."""
Title = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200), OneLine]
Description = Annotated[str, StringConstraints(max_length=10_000)]
#: Position among the siblings; the limit is below the maximum of PostgreSQL's integer.
Position = Annotated[int, Field(ge=0, le=1_000_000_000)]
_Coordinate = Annotated[float, Field(ge=-1e9, le=1e9, allow_inf_nan=False)]


class _Request(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Layout(_Request):
    """The place where a client draws a node."""

    x: _Coordinate | None = None
    y: _Coordinate | None = None
    z: _Coordinate | None = None
    group: Annotated[str, StringConstraints(max_length=200)] | None = None
    view_mode: Annotated[str, StringConstraints(max_length=50)] | None = None


class CreateNode(_Request):
    """Body of ``POST /nodes``."""

    kind: NodeKind
    title: Title
    #: Id of the parent; null creates the root of a new tree, owned by the sender. A workspace is always a
    #: root.
    parent_id: UUID | None = None
    description: Description = ""
    layout: Layout | None = None
    #: Null: inherited from the parent; ``shared`` for a root.
    visibility: Visibility | None = None
    #: Position among the siblings; null: after the last one.
    position: Position | None = None


class UpdateNode(_Request):
    """Body of ``PATCH /nodes/{id}``.

    If ``visibility`` is null, the node inherits the visibility of its parent; for a root, null is refused. In
    every other field, null has the same meaning as omitting the field.
    """

    title: Title | None = None
    description: Description | None = None
    layout: Layout | None = None
    visibility: Visibility | None = None


class MoveNode(_Request):
    """Body of ``POST /nodes/{id}/move``."""

    #: Id of the new parent; null makes the node a root.
    parent_id: UUID | None
    #: Position among the new siblings; null: after the last one.
    position: Position | None = None


class NodeView(BaseModel):
    """A node in a response."""

    id: UUID
    kind: NodeKind
    #: Null if the node is a root, or the sender may not read the parent.
    parent_id: UUID | None
    title: str
    description: str
    position: int
    layout: dict[str, Any] | None
    #: The effective value, inherited or not.
    visibility: Visibility
    #: Compared with ``If-Match``; also the ETag.
    version: int
    created_by: str
    created_at: AwareDatetime
    changed_at: AwareDatetime


class NodePlace(BaseModel):
    """One ancestor of a node."""

    id: UUID
    title: str


class NodeDetail(NodeView):
    """A node with its ancestors and the role of the sender."""

    role: Role
    #: The ancestors, from the topmost one that the sender may read down to the parent.
    path: list[NodePlace]


class NodePage(BaseModel):
    """A page of nodes."""

    items: list[NodeView]
    #: Null on the last page.
    next_cursor: str | None = None


class TreeNode(NodeView):
    """A node of a tree with its depth below the tree's first node."""

    depth: int


class NodeTree(BaseModel):
    """A node and its descendants: parents before children, siblings in their order."""

    items: list[TreeNode]
