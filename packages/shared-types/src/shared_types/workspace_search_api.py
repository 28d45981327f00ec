"""Define response bodies of the search in a workspace."""

from enum import StrEnum
from uuid import UUID

from pydantic import BaseModel

from shared_types.workspace import NodeKind

__all__ = ("FoundIn", "SearchHit", "SearchPage")


class FoundIn(StrEnum):
    """Where the search words were found. Results are sorted in this order."""

    TITLE = "title"
    DESCRIPTION = "description"
    CHAPTER = "chapter"
    PLAYERS = "players"


class SearchHit(BaseModel):
    """A node or a chapter that contains the search words."""

    node_id: UUID
    kind: NodeKind
    #: Title of the node.
    title: str
    #: Null if the node itself, and not a chapter, was found.
    chapter_id: UUID | None
    #: Null if ``chapter_id`` is null.
    chapter_title: str | None
    #: The first place, in the order of FoundIn, that contains the search words.
    found_in: FoundIn


class SearchPage(BaseModel):
    """A page of results, ordered by `found_in` (in the order of FoundIn), then newest first."""

    items: list[SearchHit]
    #: Null on the last page.
    next_cursor: str | None = None
