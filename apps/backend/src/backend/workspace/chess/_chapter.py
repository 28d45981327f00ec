"""The content of a chapter."""

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from backend.workspace.chess._tree import MoveTree

__all__ = ("ChapterContent",)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChapterContent:
    """The content of a chapter in a study, a file or a version."""

    chapter_id: UUID
    title: str
    headers: Mapping[str, str]
    tree: MoveTree
