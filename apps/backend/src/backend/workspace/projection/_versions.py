"""Apply events of a study's versions: a snapshot, and a rollback, which also creates a version."""

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from shared_types.workspace import WorkspaceChapter, WorkspaceEvent, WorkspaceVersion

from backend.workspace.projection._state import NodeEvent, NodeState, handles

__all__ = ("version_chapters",)

_CONTENT = ("id", "position", "title", "headers", "moves")


def version_chapters(chapters: Iterable[WorkspaceChapter]) -> list[dict[str, Any]]:
    """Return *chapters* in their order, as the JSON objects that a row of ``workspace_versions`` contains."""
    return [_content(one) for one in sorted(chapters, key=lambda one: (one.position, one.id))]


@handles(WorkspaceEvent.STUDY_SNAPSHOT_CREATED)
def _snapshot_created(state: NodeState, event: NodeEvent) -> None:
    """Create a version of the study; all its chapters must be loaded."""
    _add_version(state, event, event.payload["number"], restored_from=None)


@handles(WorkspaceEvent.STUDY_ROLLED_BACK)
def _rolled_back(state: NodeState, event: NodeEvent) -> None:
    """Restore chapters and description of an earlier version; chapters get new ETags, the title is kept."""
    target = state.versions[event.payload["restored_from"]]
    before = dict(state.chapters)
    state.chapters.clear()
    for content in target.chapters:
        chapter_id = UUID(content["id"])
        previous = before.get(chapter_id)
        state.chapters[chapter_id] = WorkspaceChapter(
            **content,
            node_id=event.node_id,
            # The number of the node's events exceeds every version that this chapter had, even before a
            # deletion.
            version=event.version,
            created_at=previous.created_at if previous else event.at,
            changed_at=event.at,
        )
    state.change_node(event, description=target.description)
    _add_version(state, event, event.payload["number"], restored_from=target.number)


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
