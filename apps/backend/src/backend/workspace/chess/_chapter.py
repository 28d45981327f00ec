"""The content of a chapter: title, headers and moves."""

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from backend.workspace.chess._tree import MoveTree

__all__ = ("ChapterContent",)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChapterContent:
    """Id, title, headers and moves of a chapter, which may come from a study, a version or a PGN file."""

    chapter_id: UUID
    title: str
    headers: Mapping[str, str]
    tree: MoveTree
