"""Deciders of changes of a chapter's moves, and the JSON view of a chapter; needs the package ``chess``.

Each decider returns the payload of the event. The payload contains all changes that follow from the rules of
chess, so that :mod:`backend.workspace.projection` can apply the event without these rules.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from shared_types.workspace import WorkspaceChapter
from shared_types.workspace_study_api import AddMove, AnnotationView, ChapterView, MoveView, SetAnnotation

from backend.workspace.chess import (
    START,
    Annotation,
    MoveTree,
    add_move,
    annotate,
    delete_move,
    demote,
    promote,
    render_moves,
)
from backend.workspace.projection import Direction

__all__ = (
    "PATHS_CHARS_MAX",
    "chapter_view",
    "decide_add_move",
    "decide_annotate_move",
    "decide_delete_move",
    "decide_move_variation",
)

Payload = dict[str, Any]

PATHS_CHARS_MAX: Final = 4_000_000
"""Maximum number of characters of all move paths in one response; a larger chapter has no paths in it.

The paths of a game of 1,200 half-moves have this size; those of 20,000 half-moves would have a billion
characters.
"""


def decide_add_move(chapter: WorkspaceChapter, request: AddMove) -> Payload:
    """Decide on adding a move; ``fen`` in the payload is the position after the move.

    Raises:
        ChessError: The rules, PGN or a limit refuse the move; see :func:`backend.workspace.chess.add_move`.
    """
    move = add_move(_tree(chapter), chapter.headers, request.after, request.move)
    annotation = {}
    if request.annotation is not None:
        annotation = _annotation_document(
            annotate(move.tree, move.path, _annotation(request.annotation)), move.path
        )
    return {
        "chapter_id": str(chapter.id),
        "move_path": move.path,
        "uci": move.uci,
        "san": move.rendered.san,
        "ply": move.rendered.ply,
        "fen": move.rendered.fen,
        "annotation": annotation,
    }


def decide_delete_move(chapter: WorkspaceChapter, path: str) -> Payload:
    """Decide on deleting a move with its subtree; ``moves`` in the payload is the number of deleted moves.

    Raises:
        MoveNotFound: No move has the path.
    """
    tree = _tree(chapter)
    left = delete_move(tree, path)
    return {
        "chapter_id": str(chapter.id),
        "move_path": path,
        "moves": len(tree.moves) - len(left.moves),
        "annotations": _changed_annotations(tree, left, path),
    }


def decide_move_variation(chapter: WorkspaceChapter, path: str, direction: Direction) -> Payload:
    """Decide on swapping the variation that begins at *path* with the next variation in *direction*.

    Raises:
        MoveNotFound, VariationFirst, VariationLast: See :func:`backend.workspace.chess.promote` and
        ``demote``.
    """
    tree = _tree(chapter)
    made = (promote if direction is Direction.UP else demote)(tree, path)
    return {
        "chapter_id": str(chapter.id),
        "move_path": path,
        "annotations": _changed_annotations(tree, made, path),
    }


def decide_annotate_move(
    chapter: WorkspaceChapter, path: str, annotation: SetAnnotation
) -> tuple[Payload, bool]:
    """Decide on the annotation of a move, or, with the empty *path*, of the starting position.

    Returns:
        The payload, and whether the annotation differs from the stored annotation.

    Raises:
        MoveNotFound, AnnotationInvalid: See :func:`backend.workspace.chess.annotate`.
    """
    tree = _tree(chapter)
    made = annotate(tree, path, _annotation(annotation))
    payload = {
        "chapter_id": str(chapter.id),
        "move_path": path,
        "annotation": _annotation_document(made, path),
    }
    return payload, made != tree


def chapter_view(chapter: WorkspaceChapter) -> ChapterView:
    """Return the representation of a chapter in responses."""
    tree = _tree(chapter)
    rendered = render_moves(tree, chapter.headers)
    paths = _paths(tree)
    moves = [
        MoveView(
            move_path=path,
            parent=move.parent,
            uci=move.uci,
            san=at.san,
            ply=at.ply,
            fen=at.fen,
            **move.annotation.document(),
        )
        for move, at, path in zip(tree.moves, rendered, paths, strict=True)
    ]
    fields = chapter.model_dump(include=set(ChapterView.model_fields) - {"moves"})
    start = AnnotationView(**tree.start.document())
    return ChapterView(**fields, study_id=chapter.node_id, start=start, moves=moves)


def _tree(chapter: WorkspaceChapter) -> MoveTree:
    return MoveTree.from_document(chapter.moves)


def _annotation(request: SetAnnotation) -> Annotation:
    return Annotation(
        text=request.text,
        before=request.before,
        nags=tuple(request.nags),
        clock_s=request.clock_s,
        arrows=tuple(request.arrows),
        circles=tuple(request.circles),
    )


def _at(tree: MoveTree, path: str) -> Annotation:
    index = tree.find(path)
    return tree.start if index == START else tree.moves[index].annotation


def _annotation_document(tree: MoveTree, path: str) -> Mapping[str, Any]:
    return _at(tree, path).document()


def _changed_annotations(before: MoveTree, after: MoveTree, path: str) -> Mapping[str, Any]:
    """Return the annotation of a new main continuation by the path of the move, if the annotation changed.

    A change of the tree may make another move the first among its siblings, and then moves the text before
    it. *path* is that of any of these siblings. The result has one entry, or none.
    """
    parent = after.find(path.rpartition(".")[0])
    first = [after.path_of(one) for one in after.children()[parent][:1]]
    return {one: _annotation_document(after, one) for one in first if _at(after, one) != _at(before, one)}


def _paths(tree: MoveTree) -> Sequence[str | None]:
    """Return the path of each move; if all paths together are too long, None for each move."""
    chars: list[int] = []
    for move in tree.moves:
        chars.append(len(move.uci) + (1 + chars[move.parent] if move.parent != START else 0))
    if sum(chars) > PATHS_CHARS_MAX:
        return [None] * len(tree.moves)
    paths: list[str] = []
    for move in tree.moves:
        paths.append(f"{paths[move.parent]}.{move.uci}" if move.parent != START else move.uci)
    return paths
