"""What a chapter holds."""

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from backend.workspace.chess._tree import MoveTree

__all__ = ("ChapterContent",)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChapterContent:
    """A chapter as a study, a file or a version holds it."""

    chapter_id: UUID
    title: str
    headers: Mapping[str, str]
    tree: MoveTree
