"""Allowed and refused changes of a tree of moves."""

import random

import chess
import pytest
from backend.workspace.chess import (
    MOVES_MAX,
    SHAPES_MAX,
    TEXT_CHARS_MAX,
    VARIATIONS_MAX,
    Annotation,
    Move,
    MoveTree,
    add_move,
    annotate,
    delete_move,
    demote,
    game_title,
    promote,
    render_moves,
    to_canonical,
)
from backend.workspace.chess._headers import start_board
from backend.workspace.chess._moves import play_san
from backend.workspace.errors import (
    AnnotationInvalid,
    ChessError,
    MoveExists,
    MoveIllegal,
    MoveNotFound,
    MovesFull,
    PositionInvalid,
    VariationFirst,
    VariationLast,
    VariationsFull,
)
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import from_json, to_json

from tests.fixtures.chess_trees import PROPERTY_SETTINGS, START_POSITIONS, annotations, chapters, texts

Chapter = tuple[dict[str, str], MoveTree]


def grown(*lines: str) -> MoveTree:
    """Return a tree of lines in SAN, each a variation of those before it."""
    tree = MoveTree()
    for line in lines:
        path = ""
        for san in line.split():
            try:
                added = add_move(tree, {}, path, san)
            except MoveExists:
                board = chess.Board()
                for uci in filter(None, path.split(".")):
                    board.push_uci(uci)
                path = f"{path}.{board.parse_san(san).uci()}".removeprefix(".")
            else:
                tree, path = added.tree, added.path
    tree.check()
    return tree


def lines(tree: MoveTree) -> list[str]:
    children = tree.children()
    return [tree.path_of(index) for index in range(len(tree.moves)) if not children[index]]


def test_moves_are_added_by_san_or_uci_and_have_a_path() -> None:
    first = add_move(MoveTree(), {}, "", "e4")
    assert (first.path, first.uci) == ("e2e4", "e2e4")
    second = add_move(first.tree, {}, first.path, "e7e5")
    assert (second.path, second.uci) == ("e2e4.e7e5", "e7e5")
    assert second.tree == MoveTree((Move(-1, "e2e4"), Move(0, "e7e5")))
    assert second.rendered == render_moves(second.tree, {})[1]
    assert add_move(second.tree, {}, second.path, "Nf3").path == "e2e4.e7e5.g1f3"
    assert add_move(second.tree, {}, second.path, "--").path == "e2e4.e7e5.0000"


@pytest.mark.parametrize("glyph", ["!", "??", "!?", "□", "±"])
def test_move_with_a_glyph_is_refused(glyph: str) -> None:
    with pytest.raises(MoveIllegal, match=r"glyphs in annotation\.nags"):
        add_move(MoveTree(), {}, "", f"e4{glyph}")


@pytest.mark.parametrize("word", ["O-O", "o-o", "0-0", "O–O", "O‑O"])
def test_castling_is_accepted_in_the_spellings_of_files(word: str) -> None:
    headers = {"FEN": "4k3/8/8/8/8/8/8/4K2R w K - 0 1", "SetUp": "1"}
    assert add_move(MoveTree(), headers, "", word).rendered.san == "O-O"


def test_new_move_is_the_last_variation_at_its_place() -> None:
    tree = grown("e4 e5 Nf3", "e4 c5 Nf3", "d4 d5")
    last = add_move(tree, {}, "e2e4", "e6").tree
    assert [last.moves[one].uci for one in last.children()[0]] == ["e7e5", "c7c5", "e7e6"]
    first = add_move(tree, {}, "", "c4").tree
    assert first.moves[-1] == Move(-1, "c2c4")
    for one in (last, first):
        one.check()


def test_existing_move_is_refused_and_named() -> None:
    with pytest.raises(MoveExists, match=r"e2e4\.e7e5") as refused:
        add_move(grown("e4 e5"), {}, "e2e4", "e7e5")
    assert refused.value.error_code == "MOVE_EXISTS"


@pytest.mark.parametrize("move", ["Ke2", "e2e5", "e7e5", "Zz9", "", "Nd2", "e9", "x" * 500, "0000e2e4"])
def test_error_for_an_illegal_move_shows_the_position(move: str) -> None:
    with pytest.raises(MoveIllegal, match="rnbqkbnr/pppppppp/8/8/8/8/PPPPPPPP/RNBQKBNR w KQkq - 0 1"):
        add_move(MoveTree(), {}, "", move)


def test_null_move_in_check_is_illegal() -> None:
    tree = grown("e4 d5 Bb5+")
    with pytest.raises(MoveIllegal):
        add_move(tree, {}, "e2e4.d7d5.f1b5", "--")


def test_castling_has_one_path_in_every_spelling() -> None:
    headers = {"FEN": "4k3/8/8/8/8/8/8/4K2R w K - 0 1"}
    for move in ("O-O", "e1g1", "0-0"):
        assert add_move(MoveTree(), headers, "", move).uci == "e1g1"
    for move in ("O-O", "e1h1", "e1g1"):
        assert add_move(MoveTree(), {**headers, "Variant": "Chess960"}, "", move).uci == "e1h1"


def test_tree_move_has_at_most_ten_variations() -> None:
    tree = grown("e4", "d4", "c4", "b4", "a4", "f4", "g4", "h4", "e3", "d3", "c3")
    assert len(tree.moves) == VARIATIONS_MAX + 1
    with pytest.raises(VariationsFull):
        add_move(tree, {}, "", "a3")


def test_number_of_moves_of_a_tree_is_limited() -> None:
    circle = ("g1f3", "g8f6", "f3g1", "f6g8")
    tree = MoveTree(tuple(Move(at - 1, circle[at % 4]) for at in range(MOVES_MAX)))
    with pytest.raises(MovesFull):
        add_move(tree, {}, "", "e4")


def test_every_operation_refuses_an_unknown_path() -> None:
    tree = grown("e4 e5")
    for path in ("e2e3", "e2e4.e7e6", "e2e4.e7e5.g1f3", "e2e4.", "e7e5", "."):
        for act in (delete_move, promote, demote):
            with pytest.raises(MoveNotFound):
                act(tree, path)
        with pytest.raises(MoveNotFound):
            annotate(tree, path, Annotation())
        with pytest.raises(MoveNotFound):
            add_move(tree, {}, path, "a6")
    for act in (delete_move, promote, demote):
        with pytest.raises(MoveNotFound):
            act(tree, "")


def test_deleting_a_main_move_promotes_the_next_variation() -> None:
    tree = grown("e4 e5 Nf3 Nc6", "e4 e5 f4", "e4 c5 Nf3", "d4 d5")
    assert lines(delete_move(tree, "e2e4.e7e5")) == ["e2e4.c7c5.g1f3", "d2d4.d7d5"]
    assert lines(delete_move(tree, "e2e4")) == ["d2d4.d7d5"]
    assert delete_move(grown("e4"), "e2e4") == MoveTree()


def test_promotion_and_demotion_move_a_variation_by_one_place() -> None:
    tree = grown("e4 e5 Nf3", "d4 d5", "c4")
    up = promote(tree, "c2c4")
    assert lines(up) == ["e2e4.e7e5.g1f3", "c2c4", "d2d4.d7d5"]
    assert lines(promote(up, "c2c4")) == ["c2c4", "e2e4.e7e5.g1f3", "d2d4.d7d5"]
    assert lines(demote(tree, "e2e4")) == ["d2d4.d7d5", "e2e4.e7e5.g1f3", "c2c4"]
    with pytest.raises(VariationFirst):
        promote(tree, "e2e4")
    with pytest.raises(VariationFirst):
        promote(tree, "e2e4.e7e5")
    with pytest.raises(VariationLast):
        demote(tree, "c2c4")


def test_text_before_a_promoted_variation_moves_into_its_text() -> None:
    tree = annotate(grown("e4", "d4"), "d2d4", Annotation(before="Solid is", text="the queen's pawn"))
    assert tree.moves[1].annotation.before == "Solid is"
    assert promote(tree, "d2d4").moves[0].annotation == Annotation(text="Solid is\nthe queen's pawn")
    assert delete_move(tree, "e2e4").moves[0].annotation == Annotation(text="Solid is\nthe queen's pawn")
    led = annotate(tree, "e2e4", Annotation(before="Best"))
    assert led.moves[0].annotation == Annotation(text="Best")


def test_annotation_is_stored_as_pgn_would_return_it() -> None:
    sent = Annotation(
        text=" [%clk 0:01:30.25]\r\nTake [%cal Ge2e4,Rd1d8] care \ufeff[%csl Ya1] [%eval 0.5] ",
        nags=(146, 1, 1),
        arrows=("Ge2e4", "Ge2e4"),
    )
    assert annotate(grown("e4"), "e2e4", sent).moves[0].annotation == Annotation(
        text="Take care [%eval 0.5]",
        nags=(1, 146),
        clock_s=90.25,
        arrows=("Ge2e4", "Rd1d8"),
        circles=("Ya1",),
    )
    start = annotate(MoveTree(), "", Annotation(text="Begin", circles=("Ga1",)))
    assert start.start == Annotation(text="Begin", circles=("Ga1",))


def test_clock_field_has_priority_over_a_clock_in_the_text() -> None:
    assert to_canonical(Annotation(text="[%clk 0:00:01] x", clock_s=2.00049)) == Annotation(
        text="[%clk 0:00:01] x", clock_s=2.0
    )


@pytest.mark.parametrize(
    "annotation",
    [
        Annotation(text="x" * (TEXT_CHARS_MAX + 1)),
        Annotation(text="x" * TEXT_CHARS_MAX, before="x"),
        Annotation(text="a\0b"),
        Annotation(before="\ud800"),
        Annotation(nags=(256,)),
        Annotation(nags=(-1,)),
        Annotation(clock_s=-1.0),
        Annotation(clock_s=float("nan")),
        Annotation(clock_s=3_600_000.0),
        Annotation(arrows=("Ge2e2",)),
        Annotation(arrows=("e2e4",)),
        Annotation(circles=("Gi9",)),
        Annotation(circles=("Ge2e4",)),
        Annotation(arrows=tuple(f"{c}{a}{b}" for c in "RG" for a in ("a1",) for b in chess.SQUARE_NAMES[1:])
            + tuple(f"{c}h8{b}" for c in "RGYB" for b in chess.SQUARE_NAMES[:63])),
        Annotation(text="[%cal" * 9 + " Ge2e4]" + " Ge2e4]" * 8),
    ],
)  # fmt: skip
def test_annotation_that_pgn_cannot_express_is_refused(annotation: Annotation) -> None:
    with pytest.raises(AnnotationInvalid):
        annotate(grown("e4", "d4"), "d2d4", annotation)


def test_annotation_can_have_the_documented_maximum() -> None:
    full = Annotation(
        text="x" * TEXT_CHARS_MAX,
        circles=tuple(f"{c}{one}" for c in "RGYB" for one in chess.SQUARE_NAMES)[:SHAPES_MAX],
        clock_s=3_599_999.999,
    )
    assert annotate(grown("e4"), "e2e4", full).moves[0].annotation == full


def test_start_cannot_have_glyphs() -> None:
    with pytest.raises(AnnotationInvalid, match="start"):
        annotate(MoveTree(), "", Annotation(nags=(1,)))


@PROPERTY_SETTINGS
@given(annotations())
def test_canonical_form_of_an_annotation_does_not_change_again(annotation: Annotation) -> None:
    assert to_canonical(annotation) == annotation
    assert Annotation.from_document(from_json(to_json(annotation.document()))) == annotation


@PROPERTY_SETTINGS
@given(texts)
def test_text_outside_commands_is_kept(text: str) -> None:
    kept = to_canonical(Annotation(text=text)).text
    if "[%" not in text:
        assert kept == text.replace("\ufeff", "").replace("\r\n", "\n").replace("\r", "\n").strip()


@PROPERTY_SETTINGS
@given(chapters(), st.randoms(use_true_random=False))
def test_random_changes_keep_the_invariants_of_the_tree(chapter: Chapter, rng: random.Random) -> None:
    headers, tree = chapter
    for _ in range(8):
        path = tree.path_of(rng.randrange(len(tree.moves))) if tree.moves else ""
        act = rng.choice([promote, demote, delete_move])
        try:
            if rng.random() < 0.5:
                shown = render_moves(tree, headers)
                board = chess.Board(shown[tree.find(path)].fen) if path else None
                move = rng.choice([one.uci() for one in board.legal_moves]) if board else "e2e4"
                tree = add_move(tree, headers, path, move).tree
            else:
                tree = act(tree, path)
        except (ChessError, IndexError):
            continue
        tree.check()
        assert MoveTree.from_document(from_json(to_json(tree.document()))) == tree


@PROPERTY_SETTINGS
@given(chapters())
def test_paths_stay_valid_when_variations_change_places(chapter: Chapter) -> None:
    _, tree = chapter
    for index in range(len(tree.moves)):
        path = tree.path_of(index)
        assert tree.find(path) == index
        if tree.siblings(index)[0] != index:
            moved = promote(tree, path)
            assert {moved.path_of(one) for one in range(len(moved.moves))} == {
                tree.path_of(one) for one in range(len(tree.moves))
            }
            assert [one.uci for one in demote(moved, path).moves] == [one.uci for one in tree.moves]


@PROPERTY_SETTINGS
@given(st.sampled_from(START_POSITIONS), st.lists(st.integers(0, 300), max_size=12))
def test_moves_follow_the_rules_of_chess(start: dict[str, str], choices: list[int]) -> None:
    board = chess.Board(start.get("FEN", chess.STARTING_FEN), chess960=start.get("Variant") == "Chess960")
    board.chess960 = board.chess960 or board.has_chess960_castling_rights()
    for choice in choices:
        legal = sorted(board.legal_moves, key=chess.Move.uci)
        if not legal:
            break
        for san in {board.san(move) for move in legal} | SANS:
            fresh = board.copy(stack=False)
            try:
                wanted = board.uci(board.parse_san(san))
            except ValueError:
                with pytest.raises(ValueError, match=r".+"):
                    play_san(fresh, san)
                assert fresh == board
            else:
                assert play_san(fresh, san) == wanted
                fresh.pop()
                assert fresh == board
        board.push(legal[choice % len(legal)])


SANS = {
    f"{piece}{capture}{square}"
    for piece in ("", "N", "Q", "K", "Rd", "e", "B1")
    for capture in ("", "x")
    for square in ("e4", "d5", "f7", "c6", "e8")
}


def test_san_and_position_allow_drawing_a_board() -> None:
    tree = grown("e4 e5 Nf3", "e4 c5", "d4")
    shown = render_moves(tree, {})
    assert [(one.san, one.ply) for one in shown] == [("e4", 1), ("e5", 2), ("Nf3", 3), ("c5", 2), ("d4", 1)]
    assert shown[3].fen == "rnbqkbnr/pp1ppppp/8/2p5/4P3/8/PPPP1PPP/RNBQKBNR w KQkq - 0 2"
    endgame = {"FEN": "8/8/8/3k4/8/3K4/3P4/8 b - - 12 57"}
    (only,) = render_moves(MoveTree((Move(-1, "d5e5"),)), endgame)
    assert (only.san, only.ply) == ("Ke5", 114)


@pytest.mark.parametrize(
    "headers",
    [
        {"Variant": "Atomic"},
        {"FEN": "hello"},
        {"FEN": "k7/8/8/8/8/8/8/8 w - - 0 1"},
        {"FEN": "k6R/8/8/8/8/8/8/K7 w - - 0 1"},
        {"FEN": "k6P/8/8/8/8/8/8/K7 w - - 0 1"},
    ],
)
def test_headers_without_a_valid_position_are_refused(headers: dict[str, str]) -> None:
    with pytest.raises(PositionInvalid):
        start_board(headers)


def test_start_position_may_be_given_explicitly() -> None:
    fen = "4k3/8/8/8/8/8/4P3/4K3 w - - 0 1"
    assert start_board({"FEN": fen, "Variant": "From Position"}).fen() == fen


def test_title_of_a_game_is_made_of_its_players() -> None:
    assert game_title({"White": "A", "Black": "?"}) == "A – ?"
    assert game_title({"White": "?", "Black": "?", "Event": "Cup"}) == "Cup"
    assert game_title({"White": "A", "ChapterName": "Mine"}) == "Mine"
    assert game_title({"Event": "?"}) is None
    assert len(game_title({"Event": "x" * 500}) or "") == 200
