"""Chapters and their trees of moves."""

from shared_types.workspace import WorkspaceChapter, WorkspaceEvent

from backend.workspace.history._moves import Document, Step, annotated, stepped, with_move, without_move
from backend.workspace.history._state import Happened, NodeState, applies

_STEPS = {
    WorkspaceEvent.VARIATION_PROMOTED: Step.UP,
    WorkspaceEvent.VARIATION_DEMOTED: Step.DOWN,
}


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


@applies(WorkspaceEvent.MOVE_ADDED)
def _move_added(state: NodeState, event: Happened) -> None:
    """``move_path`` is there, the last variation where it stands; with an ``annotation`` of its own."""
    path, annotation = event.payload["move_path"], event.payload["annotation"]
    _change_moves(state, event, with_move(_moves(state, event), path, annotation))


@applies(WorkspaceEvent.MOVE_DELETED)
def _move_deleted(state: NodeState, event: Happened) -> None:
    """``move_path`` is gone with what followed it; ``annotations`` are those that changed, by path."""
    moves = without_move(_moves(state, event), event.payload["move_path"])
    _change_moves(state, event, annotated(moves, event.payload["annotations"]))


@applies(*_STEPS)
def _stepped(state: NodeState, event: Happened) -> None:
    """``move_path`` changed places with its neighbour; ``annotations`` are those that changed, by path."""
    moves = stepped(_moves(state, event), event.payload["move_path"], _STEPS[event.type])
    _change_moves(state, event, annotated(moves, event.payload["annotations"]))


@applies(WorkspaceEvent.ANNOTATION_UPDATED)
def _annotated(state: NodeState, event: Happened) -> None:
    """``annotation`` stands at ``move_path`` now; the empty path is the start."""
    moves = annotated(_moves(state, event), {event.payload["move_path"]: event.payload["annotation"]})
    _change_moves(state, event, moves)


def _moves(state: NodeState, event: Happened) -> Document:
    return state.chapters[event.id("chapter_id")].moves


def _change_moves(state: NodeState, event: Happened, moves: Document) -> None:
    chapter = state.chapters[event.id("chapter_id")]
    update = {"moves": moves, "version": chapter.version + 1, "changed_at": event.at}
    state.chapters[chapter.id] = chapter.model_copy(update=update)
