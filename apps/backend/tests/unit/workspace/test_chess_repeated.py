"""Variations that repeat moves: the main line of a file stays the same, and every change is reported."""

import io
from collections.abc import Iterator
from uuid import uuid4

import chess
import chess.pgn
import pytest
from backend.workspace.chess import (
    Annotation,
    ChapterContent,
    MoveTree,
    Note,
    ReadGame,
    add_move,
    delete_move,
    demote,
    promote,
    read_games,
    write_file,
)
from hypothesis import given
from hypothesis import strategies as st

from tests.fixtures.chess_trees import PROPERTY_SETTINGS

GLYPHS = [1, 2, 3, 4, 5, 6]


def read_one(text: str) -> ReadGame:
    (game,) = read_games(text.encode())
    assert isinstance(game, ReadGame), game.reason
    return game


def exported(game: ReadGame) -> str:
    chapter = ChapterContent(chapter_id=uuid4(), title=game.title, headers=game.headers, tree=game.tree)
    return write_file([chapter])


def moves_of(game: ReadGame) -> str:
    return " ".join(exported(game).partition("\n\n")[2].split())


def main_line(tree: MoveTree) -> list[str]:
    return [one.uci for index, one in enumerate(tree.moves) if one.parent == index - 1][: _length(tree)]


def _length(tree: MoveTree) -> int:
    return next((index for index, one in enumerate(tree.moves) if one.parent != index - 1), len(tree.moves))


def notes_of(game: ReadGame, *, dropped: bool) -> list[str]:
    return [one.note for one in game.notes if one.dropped is dropped]


#: Every form of a repeated variation, and its export.
SHAPES = {
    "repeats the last move and goes on": (
        "1. e4 e5 (1... e5 2. Nf3 Nc6) 1-0",
        "1. e4 e5 { (2. Nf3 Nc6) } 1-0",
    ),
    "repeats the last move and stops": ("1. e4 e5 (1... e5) 1-0", "1. e4 e5 1-0"),
    "repeats a move before the last": (
        "1. e4 e5 (1... e5 2. d4 exd4) 2. Nf3 1-0",
        "1. e4 e5 2. Nf3 (2. d4 exd4) 1-0",
    ),
    "is a beginning of the main line": ("1. e4 (1. e4 e5) 1... e5 2. Nf3 *", "1. e4 e5 2. Nf3 *"),
    "is the main line and more": (
        "1. e4 (1. e4 e5 2. Nf3 Nc6 3. Bb5) 1... e5 2. Nf3 *",
        "1. e4 e5 2. Nf3 { (2... Nc6 3. Bb5) } *",
    ),
    "is nested in one that repeats": (
        "1. e4 e5 (1... e5 2. Nf3 (2. Nf3 Nc6) 2... d6) 1-0",
        "1. e4 e5 { (2. Nf3 d6 (2... Nc6)) } 1-0",
    ),
    "is nested in one that does not": (
        "1. e4 e5 (1... c5 2. Nf3 (2. Nf3 d6) 2... Nc6) 2. d4 *",
        "1. e4 e5 (1... c5 2. Nf3 Nc6 (2... d6)) 2. d4 *",
    ),
    "comes several times": (
        "1. e4 e5 (1... e5 2. Nf3) (1... e5 2. d4) (1... e5) 1-0",
        "1. e4 e5 { (2. Nf3 (2. d4)) } 1-0",
    ),
    "equals another": (
        "1. e4 e5 (1... c5 2. Nf3) (1... c5 2. Nf3) 2. d4 *",
        "1. e4 e5 (1... c5 2. Nf3) 2. d4 *",
    ),
    "is longer than another": (
        "1. e4 e5 (1... c5 2. Nf3) (1... c5 2. Nf3 d6) 2. d4 *",
        "1. e4 e5 (1... c5 2. Nf3 d6) 2. d4 *",
    ),
    "has glyphs of its own": ("1. e4 $1 (1. e4 $6 c5) 1... e5 *", "1. e4 $1 e5 (1... c5) *"),
    "has glyphs where the main line has none": ("1. e4 (1. e4 $6 c5) 1... e5 *", "1. e4 e5 (1... c5) *"),
    "is given before the main line comes there": (
        "1. e4 e5 (1... e5 2. Nf3 $6 {v} Nc6) 2. Nf3 $1 {m} d6 *",
        "1. e4 e5 2. Nf3 $1 { m v } 2... d6 (2... Nc6) *",
    ),
    "repeats the comment as well": (
        "1. e4 {[%clk 0:01:00]} (1. e4 {[%clk 0:01:00]} c5) 1... e5 *",
        "1. e4 { [%clk 0:01:00] } 1... e5 (1... c5) *",
    ),
    "says something before it": (
        "1. e4 {a} e5 ({better} 1... e5 {b} 2. Nf3) 2. d4 *",
        "1. e4 { a } 1... e5 { better b } 2. d4 (2. Nf3) *",
    ),
    "says something after the end": (
        "1. e4 e5 {mate} (1... e5 {or} 2. Nf3 $1 {good [%cal Ge2e4]} (2. d4) 2... Nc6) 1-0",
        "1. e4 e5 { mate or (2. Nf3 $1 good (2. d4) 2... Nc6) } 1-0",
    ),
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_main_line_does_not_grow_when_a_variation(shape: str) -> None:
    text, expected = SHAPES[shape]
    game = read_one(text)
    assert moves_of(game) == expected
    game.tree.check()
    assert game.notes
    again = read_one(exported(game))
    assert (again.tree, again.notes) == (game.tree, ())


def test_glyph_of_a_repeated_move_is_reported_as_dropped() -> None:
    game = read_one("1. d4\n(1. d4 $6 d5) (1. d4 $6 e6) ($2 1. d4) d5 *")
    assert game.notes == (
        Note(
            line=2,
            note="a variation begins with a move that exists already; the two are merged",
            count=3,
            dropped=False,
        ),
        Note(line=2, note="the glyph $6 of a move that occurs twice", count=1, dropped=True),
        Note(line=2, note="the glyph $2 of a move that occurs twice", count=1, dropped=True),
    )


def test_moves_after_the_main_line_are_reported_at_their_line() -> None:
    game = read_one("1. e4 e5\n(1... c5)\n(1... e5 2. Nf3 {[%clk 0:00:09]} Nc6) 1-0")
    assert notes_of(game, dropped=True) == [
        "clocks, arrows and circles of moves after the last move of the main line (2)"
    ]
    assert [one.line for one in game.notes] == [3, 3, 3]


def test_moves_without_room_in_the_text_are_reported_as_dropped() -> None:
    remark = "x" * 9_000
    game = read_one(f"1. e4 e5 {{{remark}}} (1... e5 2. Nf3 {{{remark}}}) 1-0")
    assert main_line(game.tree) == ["e2e4", "e7e5"]
    assert game.tree.moves[1].annotation.text == remark
    [note] = notes_of(game, dropped=True)
    assert note == "moves after the last move of the main line (1); its text has no room for them"


def test_moves_after_a_main_line_of_many_moves_are_kept() -> None:
    """The position after thousands of moves is not accepted in a FEN tag."""
    circle = "Nf3 Nf6 Ng1 Ng8 " * 3_000
    game = read_one(f"{circle} e4 (e4 e5) *")
    assert _length(game.tree) == 12_001
    assert game.tree.moves[-1].annotation.text == "(6001... e5)"


Board = chess.Board


@st.composite
def lines(draw: st.DrawFn, board: Board, depth: int, forced: list[chess.Move]) -> str:
    """Return moves from *board*, with variations, after the *forced* moves, which another line has too."""
    tokens: list[str] = []
    board = board.copy(stack=False)
    length = draw(st.integers(1 if depth else 0, 4))
    played = [*forced[: draw(st.integers(0, len(forced)))]]
    main: list[chess.Move] = []
    for place in range(max(length, len(played))):
        moves = sorted(board.legal_moves, key=str)[:3]
        if not moves:
            break
        move = played[place] if place < len(played) else draw(st.sampled_from(moves))
        number = f"{board.fullmove_number}{'.' if board.turn else '...'}"
        said = draw(st.sampled_from(["", "", "$1", "$6", "{one}", "{two (2. x)}", "{[%clk 0:00:07]}"]))
        tokens.append(f"{number} {board.san(move)} {said}")
        main.append(move)
        before = board.copy(stack=False)
        board.push(move)
        for _ in range(draw(st.integers(0, 2)) if depth < 2 else 0):
            shared = [move] if draw(st.booleans()) else []
            text = draw(lines(before, depth + 1, shared))
            if text:
                remark = draw(st.sampled_from(["", "", "{before} "]))
                tokens.append(f"({remark}{text})")
    return " ".join(tokens)


files = lines(chess.Board(), 0, []).map(lambda text: f'[Event "x"]\n[Result "1-0"]\n\n{text} 1-0\n')


def paths(node: chess.pgn.GameNode, path: str = "") -> Iterator[str]:
    for child in node.variations:
        here = f"{path}.{child.uci()}".removeprefix(".")
        yield here
        yield from paths(child, here)


@PROPERTY_SETTINGS
@given(files)
def test_main_line_is_that_of_the_file_as_chess_reads_it(text: str) -> None:
    theirs, game = chess.pgn.read_game(io.StringIO(text)), read_one(text)
    assert theirs is not None
    main = list(theirs.mainline())
    assert main_line(game.tree) == [one.uci() for one in main]
    for index, one in enumerate(main):
        assert set(game.tree.moves[index].annotation.nags) == one.nags
    again = chess.pgn.read_game(io.StringIO(exported(game)))
    assert again is not None
    assert [one.uci() for one in again.mainline()] == [one.uci() for one in main]
    assert [one.nags for one in again.mainline()] == [one.nags for one in main]


@PROPERTY_SETTINGS
@given(files)
def test_import_export_import_is_a_fixed_point(text: str) -> None:
    game = read_one(text)
    game.tree.check()
    again = read_one(exported(game))
    assert (again.headers, again.tree, again.notes) == (game.headers, game.tree, ())
    assert exported(again) == exported(game)


@PROPERTY_SETTINGS
@given(files)
def test_every_move_of_the_file_is_imported_or_reported(text: str) -> None:
    theirs, game = chess.pgn.read_game(io.StringIO(text)), read_one(text)
    assert theirs is not None
    mine = {game.tree.path_of(index) for index in range(len(game.tree.moves))}
    lacking = set(paths(theirs)) - mine
    assert mine <= set(paths(theirs))
    line = ".".join(main_line(game.tree))
    assert all(path.startswith(f"{line}.") for path in lacking)
    reported = [one for one in game.notes if "after the last move of the main line" in one.note]
    assert bool(reported) == bool(lacking)
    if lacking:
        assert f"({len(lacking)})" in reported[0].note


def test_edits_after_the_import_see_the_main_line_of_the_file() -> None:
    game = read_one("1. e4 e5 (1... e5 2. Nf3 Nc6) (1... c5 2. c3) 1-0")
    tree = promote(game.tree, "e2e4.c7c5")
    assert main_line(tree) == ["e2e4", "c7c5", "c2c3"]
    tree = demote(tree, "e2e4.c7c5")
    assert tree == game.tree
    grown = add_move(tree, game.headers, "e2e4.e7e5", "Nf3").tree
    assert main_line(grown) == ["e2e4", "e7e5", "g1f3"]
    assert delete_move(grown, "e2e4.e7e5.g1f3") == game.tree
    assert game.tree.moves[1].annotation == Annotation(text="(2. Nf3 Nc6)")
