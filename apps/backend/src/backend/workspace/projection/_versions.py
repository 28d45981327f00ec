"""Snapshots of a study, and going back to one: history never rewinds."""

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from shared_types.workspace import WorkspaceChapter, WorkspaceEvent, WorkspaceVersion

from backend.workspace.projection._state import NodeEvent, NodeState, handles

__all__ = ("version_chapters",)

_CONTENT = ("id", "position", "title", "headers", "moves")


def version_chapters(chapters: Iterable[WorkspaceChapter]) -> list[dict[str, Any]]:
    """*chapters* as a version keeps them, in their order."""
    return [_content(one) for one in sorted(chapters, key=lambda one: (one.position, one.id))]


@handles(WorkspaceEvent.STUDY_SNAPSHOT_CREATED)
def _snapshot_created(state: NodeState, event: NodeEvent) -> None:
    """The study as it is now; all its chapters must be there."""
    _add_version(state, event, event.payload["number"], restored_from=None)


@handles(WorkspaceEvent.STUDY_ROLLED_BACK)
def _rolled_back(state: NodeState, event: NodeEvent) -> None:
    """The chapters of an earlier version come back, each with a new ETag; the title stays."""
    back_to = state.versions[event.payload["restored_from"]]
    before = dict(state.chapters)
    state.chapters.clear()
    for content in back_to.chapters:
        chapter_id = UUID(content["id"])
        existed = before.get(chapter_id)
        state.chapters[chapter_id] = WorkspaceChapter(
            **content,
            node_id=event.node_id,
            # The stream's version is larger than any that this chapter had, also before it was taken away.
            version=event.version,
            created_at=existed.created_at if existed else event.at,
            changed_at=event.at,
        )
    state.change_node(event, description=back_to.description)
    _add_version(state, event, event.payload["number"], restored_from=back_to.number)


def _add_version(state: NodeState, event: NodeEvent, number: int, *, restored_from: int | None) -> None:
    node = state.present
    state.versions[number] = WorkspaceVersion(
        node_id=event.node_id,
        number=number,
        label=event.payload.get("label", ""),
        restored_from=restored_from,
        title=node.title,
        description=node.description,
        chapters=version_chapters(state.chapters.values()),
        created_by=event.actor,
        created_at=event.at,
    )


def _content(chapter: WorkspaceChapter) -> dict[str, Any]:
    document = {name: getattr(chapter, name) for name in _CONTENT}
    return {**document, "id": str(chapter.id)}
