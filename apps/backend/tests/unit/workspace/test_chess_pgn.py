"""A chapter that is exported and imported again is the same."""

import io
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import chess
import chess.pgn
import pytest
from backend.workspace.chess import (
    Annotation,
    ChapterContent,
    MoveTree,
    ReadGame,
    add_move,
    annotate,
    read_games,
    write_file,
    write_game,
)
from backend.workspace.errors import ClipPathMissing
from hypothesis import given
from pydantic_core import from_json, to_json
from shared_types.workspace_study_api import ExportMode

from tests.fixtures.chess_trees import PROPERTY_SETTINGS, chapters, moves_only

FILES = sorted((Path(__file__).parent / "pgn").glob("*.pgn"))
Chapter = tuple[dict[str, str], MoveTree]


def read_one(text: str) -> ReadGame:
    (game,) = read_games(text.encode())
    assert isinstance(game, ReadGame), game.reason
    return game


def good(data: bytes) -> list[ReadGame]:
    return [game for game in read_games(data) if isinstance(game, ReadGame)]


def chapter_of(game: ReadGame) -> ChapterContent:
    return ChapterContent(chapter_id=uuid4(), title=game.title, headers=game.headers, tree=game.tree)


@PROPERTY_SETTINGS
@given(chapters())
def test_chapter_is_the_same_after_export_and_import(chapter: Chapter) -> None:
    headers, tree = chapter
    game = read_one(write_game(headers, tree))
    assert game.headers == headers
    assert game.tree == tree


@PROPERTY_SETTINGS
@given(chapters(moves_max=12))
def test_other_programs_read_the_same_moves_and_glyphs(chapter: Chapter) -> None:
    headers, tree = chapter
    theirs = chess.pgn.read_game(io.StringIO(write_game(headers, tree)))
    assert theirs is not None
    assert not theirs.errors
    assert list(moves_of(theirs)) == [
        (tree.path_of(index), one.annotation.nags) for index, one in enumerate(tree.moves)
    ]


def moves_of(node: chess.pgn.GameNode, path: str = "") -> Iterator[tuple[str, tuple[int, ...]]]:
    for child in node.variations:
        here = f"{path}.{child.uci()}".removeprefix(".")
        yield here, tuple(sorted(child.nags))
        yield from moves_of(child, here)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_file_is_the_same_after_import_export_and_import(path: Path) -> None:
    games = good(path.read_bytes())
    assert games
    again = good(write_file(map(chapter_of, games)).encode())
    assert [(game.headers, game.tree, game.title) for game in again] == [
        (game.headers, game.tree, game.title) for game in games
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_trees_of_real_files_keep_their_invariants(path: Path) -> None:
    for game in good(path.read_bytes()):
        game.tree.check()
        assert MoveTree.from_document(game.tree.document()) == game.tree


def test_game_is_written_in_export_format() -> None:
    game = read_one("""
[ECO "C50"]
[Event "Club \\"A\\""]

{Start} 1. e4 e5 (1... c5 2. Nf3 (2. c3 {Alapin}) d6) ({Solid} 1... e6) 2. Nf3! Nc6
{Rest [%clk 0:01:00]} 3. Bc4 Bc5 4. c3 Nf6 1-0
""")
    assert (
        write_game(game.headers, game.tree)
        == """\
[Event "Club \\"A\\""]
[Site "?"]
[Date "????.??.??"]
[Round "?"]
[White "?"]
[Black "?"]
[Result "1-0"]
[ECO "C50"]

{ Start } 1. e4 e5 (1... c5 2. Nf3 (2. c3 { Alapin }) 2... d6) ({ Solid } 1...
e6) 2. Nf3 $1 Nc6 { [%clk 0:01:00] Rest } 3. Bc4 Bc5 4. c3 Nf6 1-0
"""
    )


def test_lines_keep_to_80_columns_unless_a_comment_is_longer() -> None:
    tree = MoveTree()
    path = ""
    for _ in range(30):
        for uci in ("g1f3", "g8f6", "f3g1", "f6g8"):
            path = add_move(tree, {}, path, uci).path
            tree = add_move(tree, {}, path.rpartition(".")[0], uci).tree
    lines = write_game({}, tree).splitlines()
    assert len(lines) > 16
    assert max(map(len, lines)) <= 80
    commented = annotate(tree, path, Annotation(text="word " * 30))
    assert max(map(len, write_game({}, commented).splitlines())) > 150


STUDY = """
[FEN "rnbqkbnr/pppp1ppp/8/4p3/4P3/8/PPPP1PPP/RNBQKBNR w KQkq - 0 2"]

{Start} 2. Nf3 $1 {Knight [%csl Ge5]} (2. f4 exf4 ({Declined} 2... d5 {Falkbeer} 3. exd5) 3. Nf3)
2... Nc6 3. Bb5 *
"""


def test_export_without_comments_has_moves_and_variations() -> None:
    game = read_one(STUDY)
    bare = read_one(write_game(game.headers, game.tree, mode=ExportMode.NO_COMMENT))
    assert moves_only(bare.tree) == moves_only(game.tree)
    assert all(one.annotation == Annotation() for one in bare.tree.moves)
    assert bare.tree.start == Annotation()


def test_main_line_export_keeps_its_annotations() -> None:
    game = read_one(STUDY)
    main = read_one(write_game(game.headers, game.tree, mode=ExportMode.MAINLINE)).tree
    assert [one.uci for one in main.moves] == ["g1f3", "b8c6", "f1b5"]
    assert main.moves[0].annotation == Annotation(text="Knight", nags=(1,), circles=("Ge5",))
    assert main.start == Annotation(text="Start")


def test_clip_contains_its_move_and_all_moves_after_it() -> None:
    game = read_one(STUDY)
    text = write_game(game.headers, game.tree, mode=ExportMode.CLIP, path="f2f4.d7d5")
    clip = read_one(text)
    assert clip.headers["FEN"] == "rnbqkbnr/pppp1ppp/8/4p3/4PP2/8/PPPP2PP/RNBQKBNR b KQkq - 0 2"
    assert [one.uci for one in clip.tree.moves] == ["d7d5", "e4d5"]
    assert clip.tree.moves[0].annotation.text == "Declined\nFalkbeer"
    assert "2... d5" in text


def test_clip_of_the_first_move_has_the_position_of_the_chapter() -> None:
    game = read_one("1. e4 e5 (1... c5) *")
    clip = read_one(write_game(game.headers, game.tree, mode=ExportMode.CLIP, path="e2e4"))
    assert (clip.headers, clip.tree) == (game.headers, game.tree)


def test_clip_of_chess960_stays_chess960() -> None:
    headers = {"FEN": "rk2r3/pppppppp/8/8/8/8/PPPPPPPP/R3K2R w KQea - 0 1"}
    tree = MoveTree()
    for path, san in ("", "a3"), ("a2a3", "O-O"), ("a2a3.b8e8", "O-O"):
        tree = add_move(tree, headers, path, san).tree
    clip = read_one(write_game(headers, tree, mode=ExportMode.CLIP, path="a2a3.b8e8.e1h1"))
    assert [one.uci for one in clip.tree.moves] == ["e1h1"]


def test_clip_requires_its_move() -> None:
    with pytest.raises(ClipPathMissing):
        write_game({}, MoveTree(), mode=ExportMode.CLIP)


def test_custom_title_survives_export_and_import() -> None:
    game = read_one("1. e4 e5 *")
    mine = ChapterContent(chapter_id=uuid4(), title="The open game", headers=game.headers, tree=game.tree)
    assert read_one(write_file([mine])).title == "The open game"


def test_variations_nested_to_the_maximum_are_read_and_written() -> None:
    depth = 2_000
    # Each variation replaces the last move, adds one move, and contains the next variation.
    other, last = ("Nf3", "Nf6", "Ng1", "Ng8"), ("Nc3", "Nc6")
    opened = "".join(f" ({other[ply % 4]} {last[(ply + 1) % 2]}" for ply in range(depth))
    game = read_one(f'[Event "Deep"]\n\nNc3{opened}{")" * depth} *')
    assert len(game.tree.moves) == 1 + 2 * depth
    game.tree.check()
    assert read_one(write_game(game.headers, game.tree)).tree == game.tree
    assert MoveTree.from_document(from_json(to_json(game.tree.document()))) == game.tree
