"""The tree that a command decides equals the tree that its recorded event produces."""

import random
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import chess
import pytest
from backend.workspace.chess import (
    START,
    Annotation,
    MoveTree,
    add_move,
    annotate,
    delete_move,
    demote,
    promote,
)
from backend.workspace.errors import ChessError
from backend.workspace.projection import Direction, NodeEvent, NodeState, apply_event
from backend.workspace.studies import _chapter_moves as chapter_moves
from pydantic_core import from_json, to_json
from shared_types.workspace import NodeKind, WorkspaceChapter, WorkspaceEvent, WorkspaceNode
from shared_types.workspace_study_api import AddMove, SetAnnotation

NODE = uuid4()
AT = datetime(2026, 11, 21, tzinfo=UTC)


class Recorded:
    """A chapter that is changed only by its recorded events, after a round trip through JSON."""

    def __init__(self, tree: MoveTree | None = None) -> None:
        node = WorkspaceNode(
            id=NODE,
            kind=NodeKind.STUDY,
            owner_id="teacher",
            title="Study",
            created_by="teacher",
            created_at=AT,
            changed_at=AT,
        )
        chapter = WorkspaceChapter(
            id=uuid4(),
            node_id=NODE,
            position=0,
            title="Chapter",
            moves=(tree or MoveTree()).document(),
            created_at=AT,
            changed_at=AT,
        )
        self.state = NodeState(node=node, chapters={chapter.id: chapter})
        self.id: UUID = chapter.id

    @property
    def chapter(self) -> WorkspaceChapter:
        return self.state.chapters[self.id]

    @property
    def tree(self) -> MoveTree:
        return MoveTree.from_document(self.chapter.moves)

    def happen(self, type_: WorkspaceEvent, payload: Mapping[str, Any]) -> None:
        version = self.state.present.stream_version + 1
        recorded = from_json(to_json(payload))
        apply_event(
            self.state,
            NodeEvent(type=type_, node_id=NODE, payload=recorded, actor="teacher", at=AT, version=version),
        )


def said(dice: random.Random) -> SetAnnotation:
    return SetAnnotation(
        text=dice.choice(["", "good", "why [%clk 0:01:00] not"]),
        before=dice.choice(["", "or else"]),
        nags=dice.sample([1, 3, 14], dice.randint(0, 2)),
        arrows=dice.choice([[], ["Ge2e4"]]),
    )


def annotation_of(request: SetAnnotation) -> Annotation:
    return Annotation(
        text=request.text, before=request.before, nags=tuple(request.nags), arrows=tuple(request.arrows)
    )


def some_move(dice: random.Random, tree: MoveTree, path: str) -> str:
    board = chess.Board()
    for uci in filter(None, path.split(".")):
        board.push_uci(uci)
    # Few moves to choose from, so that some exist already.
    return dice.choice([move.uci() for move in board.legal_moves][:5])


def changed(dice: random.Random, recorded: Recorded) -> MoveTree | None:
    """Change *recorded* at random; return the tree by the rules of chess, or None if they refuse."""
    tree, chapter = recorded.tree, recorded.chapter
    path = tree.path_of(dice.randrange(START, len(tree.moves)))
    match dice.choice(["add", "add", "add", "delete", "up", "up", "down", "say", "say"]):
        case "add":
            move, words = some_move(dice, tree, path), said(dice)
            request = AddMove(after=path, move=move, annotation=words)
            added = add_move(tree, {}, path, move)
            recorded.happen(WorkspaceEvent.MOVE_ADDED, chapter_moves.decide_add_move(chapter, request))
            return annotate(added.tree, added.path, annotation_of(words))
        case "delete" if dice.random() < 0.3:
            wanted = delete_move(tree, path)
            recorded.happen(WorkspaceEvent.MOVE_DELETED, chapter_moves.decide_delete_move(chapter, path))
            return wanted
        case "up":
            wanted = promote(tree, path)
            payload = chapter_moves.decide_move_variation(chapter, path, Direction.UP)
            recorded.happen(WorkspaceEvent.VARIATION_PROMOTED, payload)
            return wanted
        case "down":
            wanted = demote(tree, path)
            payload = chapter_moves.decide_move_variation(chapter, path, Direction.DOWN)
            recorded.happen(WorkspaceEvent.VARIATION_DEMOTED, payload)
            return wanted
        case _:
            words = said(dice)
            wanted = annotate(tree, path, annotation_of(words))
            payload, differs = chapter_moves.decide_annotate_move(chapter, path, words)
            assert differs == (wanted != tree)
            recorded.happen(WorkspaceEvent.ANNOTATION_UPDATED, payload)
            return wanted


@pytest.mark.parametrize("seed", range(8))
def test_projection_equals_the_decided_tree(seed: int) -> None:
    dice, recorded, done = random.Random(seed), Recorded(), 0
    for _ in range(300):
        try:
            wanted = changed(dice, recorded)
        except ChessError:
            continue
        assert recorded.chapter.moves == wanted.document()
        wanted.check()
        done += 1
    assert done > 100
    assert recorded.chapter.version == 1 + done
    assert recorded.state.present.version == 1


def test_promoted_variation_keeps_its_text() -> None:
    recorded = Recorded()
    for move, words in [("e4", {}), ("d4", {"before": "or", "text": "sharper"})]:
        request = AddMove(after="", move=move, annotation=SetAnnotation(**words))
        recorded.happen(WorkspaceEvent.MOVE_ADDED, chapter_moves.decide_add_move(recorded.chapter, request))
    payload = chapter_moves.decide_move_variation(recorded.chapter, "d2d4", Direction.UP)
    assert payload["annotations"] == {"d2d4": {"text": "or\nsharper"}}
    recorded.happen(WorkspaceEvent.VARIATION_PROMOTED, payload)
    assert recorded.chapter.moves["moves"][0] == {"parent": START, "uci": "d2d4", "text": "or\nsharper"}


def test_moves_are_shared_with_the_previous_document() -> None:
    recorded = Recorded()
    for after, move in [("", "e4"), ("e2e4", "e5"), ("", "d4")]:
        request = AddMove(after=after, move=move)
        recorded.happen(WorkspaceEvent.MOVE_ADDED, chapter_moves.decide_add_move(recorded.chapter, request))
    before = recorded.chapter.moves
    request = AddMove(after="e2e4", move="c5")
    recorded.happen(WorkspaceEvent.MOVE_ADDED, chapter_moves.decide_add_move(recorded.chapter, request))
    assert [one["uci"] for one in before["moves"]] == ["e2e4", "e7e5", "d2d4"]
    assert recorded.chapter.moves["moves"][0] is before["moves"][0]


@pytest.mark.parametrize(
    ("type_", "payload"),
    [
        (WorkspaceEvent.MOVE_ADDED, {"move_path": "e2e4.e7e5", "annotation": {}}),
        (WorkspaceEvent.MOVE_DELETED, {"move_path": "e2e4", "annotations": {}}),
        (WorkspaceEvent.VARIATION_PROMOTED, {"move_path": "d2d4", "annotations": {}}),
        (WorkspaceEvent.VARIATION_DEMOTED, {"move_path": "d2d4", "annotations": {}}),
        (WorkspaceEvent.ANNOTATION_UPDATED, {"move_path": "d2d4.d7d5", "annotation": {}}),
    ],
)
def test_event_about_a_missing_move_is_an_error(type_: WorkspaceEvent, payload: dict[str, Any]) -> None:
    recorded = Recorded(add_move(MoveTree(), {}, "", "d4").tree)
    with pytest.raises(KeyError):
        recorded.happen(type_, {"chapter_id": str(recorded.id), **payload})


def test_paths_of_a_very_long_line_are_omitted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recorded = Recorded(add_move(MoveTree(), {}, "", "d4").tree)
    monkeypatch.setattr(chapter_moves, "PATHS_CHARS_MAX", 4)
    assert [one.move_path for one in chapter_moves.chapter_view(recorded.chapter).moves] == ["d2d4"]
    monkeypatch.setattr(chapter_moves, "PATHS_CHARS_MAX", 3)
    assert [one.move_path for one in chapter_moves.chapter_view(recorded.chapter).moves] == [None]
