"""Apply events of chapters and of their trees of moves."""

from shared_types.workspace import WorkspaceChapter, WorkspaceEvent

from backend.workspace.projection._moves import (
    Direction,
    Document,
    insert_move,
    remove_move,
    set_annotations,
    swap_variations,
)
from backend.workspace.projection._state import NodeEvent, NodeState, handles

_DIRECTIONS = {
    WorkspaceEvent.VARIATION_PROMOTED: Direction.UP,
    WorkspaceEvent.VARIATION_DEMOTED: Direction.DOWN,
}


@handles(WorkspaceEvent.PGN_IMPORTED, WorkspaceEvent.PGN_EXPORTED)
def _change_no_row(state: NodeState, event: NodeEvent) -> None:
    """Change no row: an import also emits an event for each chapter, and an export changes nothing."""


@handles(WorkspaceEvent.CHAPTER_CREATED)
def _created(state: NodeState, event: NodeEvent) -> None:
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


@handles(WorkspaceEvent.MOVE_ADDED)
def _move_added(state: NodeState, event: NodeEvent) -> None:
    """Add the move ``move_path`` with its ``annotation``, as the last variation after its previous move."""
    path, annotation = event.payload["move_path"], event.payload["annotation"]
    _change_moves(state, event, insert_move(_moves(state, event), path, annotation))


@handles(WorkspaceEvent.MOVE_DELETED)
def _move_deleted(state: NodeState, event: NodeEvent) -> None:
    """Remove the move ``move_path`` and its subtree.

    Also set ``annotations``: new annotations of other moves, by move path.
    """
    moves = remove_move(_moves(state, event), event.payload["move_path"])
    _change_moves(state, event, set_annotations(moves, event.payload["annotations"]))


@handles(*_DIRECTIONS)
def _variation_moved(state: NodeState, event: NodeEvent) -> None:
    """Swap the variation that begins with the move ``move_path`` with the variation above or below it.

    Also set ``annotations``: new annotations by move path.
    """
    moves = swap_variations(_moves(state, event), event.payload["move_path"], _DIRECTIONS[event.type])
    _change_moves(state, event, set_annotations(moves, event.payload["annotations"]))


@handles(WorkspaceEvent.ANNOTATION_UPDATED)
def _annotated(state: NodeState, event: NodeEvent) -> None:
    """Set the annotation of the move ``move_path``; the empty path is the starting position."""
    moves = set_annotations(_moves(state, event), {event.payload["move_path"]: event.payload["annotation"]})
    _change_moves(state, event, moves)


def _moves(state: NodeState, event: NodeEvent) -> Document:
    return state.chapters[event.id("chapter_id")].moves


def _change_moves(state: NodeState, event: NodeEvent, moves: Document) -> None:
    chapter = state.chapters[event.id("chapter_id")]
    update = {"moves": moves, "version": chapter.version + 1, "changed_at": event.at}
    state.chapters[chapter.id] = chapter.model_copy(update=update)
