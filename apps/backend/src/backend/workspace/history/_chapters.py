"""Chapters and their trees of moves."""

from relaybox_types.workspace import WorkspaceChapter, WorkspaceEvent

from backend.workspace.history._state import Happened, NodeState, applies


@applies(WorkspaceEvent.PGN_IMPORTED, WorkspaceEvent.PGN_EXPORTED)
def _told(state: NodeState, event: Happened) -> None:
    """A fact that no row depends on: the chapters of an import have events of their own."""


@applies(WorkspaceEvent.CHAPTER_CREATED)
def _created(state: NodeState, event: Happened) -> None:
    chapter = WorkspaceChapter(
        id=event.id("chapter_id"),
        node_id=event.node_id,
        position=event.payload["position"],
        title=event.payload["title"],
        headers=event.payload["headers"],
        moves=event.payload["moves"],
        created_at=event.at,
        changed_at=event.at,
    )
    state.chapters[chapter.id] = chapter
    state.change_node(event)
