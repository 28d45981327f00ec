"""Compare two versions of a study, or a version with the current study; needs the package ``chess``."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from shared_types.workspace_version_api import VersionDiff

from backend.workspace.chess import ChapterContent, MoveTree, diff
from backend.workspace.studies._versions import StudyContent

__all__ = ("diff_versions",)


def diff_versions(before: StudyContent, after: StudyContent) -> VersionDiff:
    """Return the changes from *before*, a version, to *after*, a version or the current study."""
    found = diff([*map(_content_of, before.chapters)], [*map(_content_of, after.chapters)])
    fields = {
        "version": before.number,
        "against": after.number or "current",
        "title_changed": before.title != after.title,
        "description_changed": before.description != after.description,
        **{name: getattr(found, name) for name in ("added", "removed", "renamed", "reordered", "changed")},
    }
    return VersionDiff.model_validate(fields, from_attributes=True)


def _content_of(chapter: Mapping[str, Any]) -> ChapterContent:
    return ChapterContent(
        chapter_id=UUID(chapter["id"]),
        title=chapter["title"],
        headers=chapter["headers"],
        tree=MoveTree.from_document(chapter["moves"]),
    )
