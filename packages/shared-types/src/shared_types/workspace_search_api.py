"""Answers of the search in a workspace."""

from enum import StrEnum
from uuid import UUID

from pydantic import BaseModel

from shared_types.workspace import NodeKind

__all__ = ("FoundIn", "SearchHit", "SearchPage")


class FoundIn(StrEnum):
    """Where the words stand, from what is shown first to what is shown last."""

    TITLE = "title"
    DESCRIPTION = "description"
    CHAPTER = "chapter"
    PLAYERS = "players"


class SearchHit(BaseModel):
    """A node or a chapter in which the words stand."""

    node_id: UUID
    kind: NodeKind
    #: Of the node.
    title: str
    #: Null for a node itself, as the next.
    chapter_id: UUID | None
    chapter_title: str | None
    #: The first of the places in which they stand.
    found_in: FoundIn


class SearchPage(BaseModel):
    """A page of what was found: by where, and there the newest first."""

    items: list[SearchHit]
    #: Null on the last page.
    next_cursor: str | None = None
