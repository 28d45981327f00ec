"""Reading PGN files of other programs: what is read, and what is skipped for which reason."""

import io
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import chess.pgn
import pytest
from backend.workspace.chess import (
    MOVES_MAX,
    Annotation,
    MoveTree,
    ReadGame,
    SkippedGame,
    count_games,
    read_games,
)

PGN = Path(__file__).parent / "pgn"


def file(name: str) -> list[ReadGame | SkippedGame]:
    return list(read_games((PGN / f"{name}.pgn").read_bytes()))


def games(name: str) -> list[ReadGame]:
    found = file(name)
    assert not [one for one in found if isinstance(one, SkippedGame)]
    return [one for one in found if isinstance(one, ReadGame)]


def read(text: str | bytes) -> list[ReadGame | SkippedGame]:
    return list(read_games(text.encode() if isinstance(text, str) else text))


def tree_of(text: str) -> MoveTree:
    (game,) = read(text)
    assert isinstance(game, ReadGame), game.reason
    return game.tree


def skipped(text: str | bytes) -> SkippedGame:
    (game,) = read(text)
    assert isinstance(game, SkippedGame)
    return game


def paths(tree: MoveTree) -> list[str]:
    return [tree.path_of(index) for index in range(len(tree.moves))]


def said(tree: MoveTree, path: str) -> Annotation:
    index = tree.find(path)
    return tree.moves[index].annotation if index >= 0 else tree.start


FILES = {
    "annotated_latin1": [(1, "Müller, Jürgen – Groß, Bärbel", 27)],
    "chess960": [(1, "A – B", 11), (14, "Rook beside the king – ?", 3)],
    "club_championship": [
        (1, "Novak, Ivana – Šimić, Luka", 22),
        (14, 'O\'Brien, "Mack" – Łukasz Żółć', 24),
        (25, "Novak, Ivana – bye", 0),
        (35, "Šimić, Luka – O'Brien", 4),
    ],
    "comments_and_escapes": [(5, "Rook, R. – Knight, N.", 10), (23, "Knight, N. – Rook, R.", 12)],
    "long_comments": [(1, "Kasparov, G. – Topalov, V.", 25)],
    "missing_results": [
        (1, "Alpha – Beta", 3),
        (6, "Gamma – Delta", 4),
        (11, "Epsilon – Zeta", 0),
        (15, "Eta – Theta", 4),
    ],
    "null_moves": [(1, "Threats", 12)],
    "positions": [
        (1, "Lucena – ?", 5),
        (13, "Black to move – ?", 5),
        (21, "En passant and promotion – ?", 7),
    ],
    "study_of_a_teacher": [(1, "The Italian", 21), (23, "Quiz", 2)],
    "utf16": [(1, "Åse – Øyvind", 10)],
    "with_byte_order_mark": [(1, "Иванов – 王", 6)],
    "without_headers": [
        (1, "Game 1", 6),
        (2, "Game 2", 4),
        (3, "Game 3", 7),
        (5, "Game 4", 3),
        (7, "Game 5", 3),
    ],
}


@pytest.mark.parametrize("name", FILES)
def test_every_game_of_a_file_is_read(name: str) -> None:
    found = games(name)
    assert [(one.line, one.title, len(one.tree.moves)) for one in found] == FILES[name]
    assert [one.number for one in found] == [*range(1, len(found) + 1)]


def test_every_file_of_the_corpus_is_parsed() -> None:
    assert {path.stem for path in PGN.glob("*.pgn")} == FILES.keys() | {"broken"}


def test_invalid_game_is_skipped_with_line_and_reason() -> None:
    found = file("broken")
    assert [(one.number, one.title) for one in found if isinstance(one, ReadGame)] == [
        (1, "First – ?"),
        (9, "Ninth – ?"),
    ]
    assert [(one.number, one.line, one.reason) for one in found if isinstance(one, SkippedGame)] == [
        (2, 10, '"Ke3" at 3. is not a legal move'),
        (3, 15, '"Sf3" at 2. is not a move; write the pieces as K, Q, R, B and N'),
        (4, 21, "a variation is not closed; a parenthesis is missing"),
        (5, 25, "a comment is not closed; a brace is missing"),
        (6, 30, 'the variant "Crazyhouse" is not supported; use standard chess or Chess960'),
        (
            7,
            36,
            'chess cannot be played from "8/8/8/8/8/8/8/8 w - - 0 1"; '
            "check the kings, the pawns and the side to move",
        ),
        (8, 43, '"Nd2" at 3. may be several moves; add the file or rank of the piece'),
    ]


def test_study_keeps_annotations() -> None:
    tree = games("study_of_a_teacher")[0].tree
    assert tree.start == Annotation(
        text="What do both sides want?\nLook at f7.", arrows=("Gc4f7",), circles=("Rf7",)
    )
    assert said(tree, "e2e4") == Annotation(text="[%eval 0.33]", clock_s=300)
    assert said(tree, "e2e4.e7e5.g1f3") == Annotation(nags=(1,), arrows=("Gf3e5", "Gf3g5"))
    bishop = "e2e4.e7e5.g1f3.b8c6.f1c4"
    assert said(tree, bishop).clock_s == 291.5
    assert said(tree, f"{bishop}.f8c5") == Annotation(
        text="with\nan eye on f2", nags=(5,), arrows=("Bc5f2",), circles=("Gc5", "Gf8")
    )
    assert said(tree, f"{bishop}.f8c5.c2c3").nags == (14, 146)
    assert said(tree, "e2e4.e7e5.g1f3.g8f6.f3e5.f6e4").nags == (4,)
    second = [tree.moves[one].uci for one in tree.children()[tree.find("e2e4.e7e5.g1f3")]]
    assert second == ["b8c6", "g8f6", "d7d6"]


def test_latin_1_is_detected_and_glyph_or_text_before_a_move_is_kept() -> None:
    (game,) = games("annotated_latin1")
    assert game.headers["Event"] == "Städtekampf"
    assert game.headers["Annotator"] == "Weiß – “Schach”"
    assert said(game.tree, "d2d4.g8f6.c2c4.e7e6") == Annotation(before="Solider ist", nags=(1,))
    assert said(game.tree, "d2d4.g8f6.c2c4.c7c5") == Annotation(nags=(142,))
    gambit = "d2d4.g8f6.c2c4.g7g6.b1c3.f8g7.e2e4.d7d6.f2f3.e8g8.c1e3.c7c5"
    assert said(game.tree, gambit) == Annotation(before="oder", text="mit Gambit")


def test_file_with_two_encodings_is_decoded_byte_by_byte() -> None:
    first, second = (
        '[White "Jürgen"]\n\n1. e4 *\n\n'.encode("latin-1"),
        '\ufeff[White "Łódź"]\n\n1. d4 *'.encode(),
    )
    titles = [one.title for one in read(first + second) if isinstance(one, ReadGame)]
    assert titles == ["Jürgen – ?", "Łódź – ?"]


def test_chess960_castling_goes_onto_the_rook() -> None:
    first, second = games("chess960")
    assert [one.uci for one in first.tree.moves][8:10] == ["d1e1", "d8c8"]
    assert paths(second.tree) == ["b1e1", "b1e1.b8a8", "b1a1"]


def test_both_kinds_of_comments_are_joined_and_escaped_lines_skipped() -> None:
    first, second = games("comments_and_escapes")
    assert "Site" in first.headers
    assert first.headers["Site"] == "?"
    assert said(first.tree, "e2e4.e7e5").text == "the open game } { ["
    assert said(first.tree, "e2e4.e7e5.g1f3.b8c6").text == "first second"
    spanish = "e2e4.e7e5.g1f3.b8c6.f1b5.a7a6"
    assert said(first.tree, spanish) == Annotation(text="Morphy", nags=(1,))
    assert said(first.tree, f"{spanish}.b5a4") == Annotation(text="and a text", clock_s=4800)
    assert second.tree.moves[-1].annotation.text == "Mate with a bishop."


def test_result_is_that_of_the_header_or_of_the_end_of_the_moves() -> None:
    results = {
        '[Result "1-0"]\n\n1. e4 0-1': "1-0",
        '[Result "*"]\n\n1. e4 0-1': "0-1",
        '[Result "½"]\n\n1. e4 ½-½': "1/2-1/2",
        '[Result "?"]\n\n1. e4': "*",
        '[Event "x"]\n\n1. e4 (1. d4 1-0) e5': "*",
        "1. e4 1/2": "1/2-1/2",
    }
    for text, result in results.items():
        (game,) = read(text)
        assert isinstance(game, ReadGame)
        assert game.headers["Result"] == result, text


def test_missing_headers_of_the_roster_are_added() -> None:
    (game,) = read(
        '[FEN "4k3/8/8/8/8/8/4P3/4K3 w - - 0 1"][White "A \\"B\\" \\\\ C"]\n'
        ' [Black "D "E" F"]\n[Round 3]\n\n*'
    )
    assert isinstance(game, ReadGame)
    assert list(game.headers) == [
        "Event", "Site", "Date", "Round", "White", "Black", "Result", "FEN", "SetUp",
    ]  # fmt: skip
    assert game.headers["White"] == 'A "B" \\ C'
    assert game.headers["Black"] == 'D "E" F'
    assert game.headers["Round"] == "3"
    assert game.headers["SetUp"] == "1"


def test_moves_may_be_on_the_line_of_the_headers() -> None:
    assert paths(tree_of('[Event "x"] 1. e4 e5 *')) == ["e2e4", "e2e4.e7e5"]


def test_signs_of_annotators_are_read_as_glyphs() -> None:
    tree = tree_of("1. e4 e5 += 2. Nf3 N Nc6 ± 3. Bc4 !? Bc5 e.p. *")
    assert [one.annotation.nags for one in tree.moves] == [(), (14,), (146,), (16,), (5,), ()]


def test_repeated_move_is_merged_and_the_main_line_stays() -> None:
    tree = tree_of(
        "1. e4 {a} (1. e4 {b} c5 (1... e5 2. d4) 2. c3) ({c} 1. e4 $1 e6) (1. d4) 1... e5 "
        "2. Nf3 (2. d4 exd4) *"
    )
    assert paths(tree) == [
        "e2e4",
        "e2e4.e7e5",
        "e2e4.e7e5.g1f3",
        "e2e4.e7e5.d2d4",
        "e2e4.e7e5.d2d4.e5d4",
        "e2e4.c7c5",
        "e2e4.c7c5.c2c3",
        "e2e4.e7e6",
        "d2d4",
    ]
    assert said(tree, "e2e4") == Annotation(text="a b c")
    tree.check()


def test_comment_after_a_variation_belongs_to_the_move_before_it() -> None:
    tree = tree_of("1. e4 (1. d4) {later} 1... e5 () ({only words}) *")
    assert said(tree, "e2e4").text == "later"
    assert said(tree, "e2e4.e7e5").text == "only words"


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("1. e4 e5\n2. Ke3 *", 2, "not a legal move"),
        ("1. e4 e5 2. Nf3 foo *", 1, '"foo" at 2...'),
        ("1. e4 e5) 2. Nf3", 1, "a closing parenthesis has no opening parenthesis"),
        ("1. e4 ((1. d4)) *", 1, "before any move"),
        ("1. e4 e5 [x] *", 1, "a bracket is not allowed among the moves"),
        ("1. e4 } *", 1, '"}" is not allowed among the moves'),
        ("1. e4 <x> *", 1, '"<" is not allowed among the moves'),
        ("1. e4\n$256 *", 2, "$0 to $255"),
        ("1. e4\n$ *", 2, "not a numeric annotation glyph"),
        ("1. e4 d5 2. Bb5 -- *", 1, "not a legal move"),
        ('[Event "x"]\n[Broken]\n\n1. e4 *', 2, "is not a header"),
        ('[Event "x"]\n[Site "' + "y" * 1001 + '"]\n\n*', 2, "the header Site has more than 1,000"),
        ("".join(f'[N{at} "x"]\n' for at in range(58)) + "\n*", 1, "more than 64 headers"),
        ('[Event "x"]\n[FEN "not a position"]\n\n1. e4 *', 2, "is not a position in FEN"),
        ('[Event "x"]\n[FEN "' + "8/" * 60 + '"]\n\n1. e4 *', 2, "too long"),
        ('[FEN "4k3/8/8/8/8/8/4P3/4K3 w - - 0 99999"]\n\n*', 1, "cannot be played"),
        ("1. e4 e5\n{" + "x" * 10_001 + "} *", 2, "at most 10,000 characters"),
        ("1. d4\n\n{" + "x" * 10_001 + "} ($1 1. d4 d5) *", 3, "at most 10,000 characters"),
        ("1. e4 e5\n{" + "x" * 9_999 + "}\n{" + "x" * 9_999 + "}\n{yyy} *", 4, "more than 10,000"),
    ],
)  # fmt: skip
def test_text_without_a_chess_game_is_refused(text: str, line: int, reason: str) -> None:
    game = skipped(text)
    assert game.line == line
    assert reason in game.reason


def test_move_of_a_file_has_at_most_ten_variations() -> None:
    others = ("a3", "a4", "b3", "b4", "c3", "c4", "d3", "d4", "e3", "f3", "f4")
    ten = "".join(f" (1. {one})" for one in others[:10])
    assert len(tree_of(f"1. e4{ten} e5 *").moves) == 12
    assert "at most 10 variations" in skipped(f"1. e4{ten} (1. {others[10]}) e5 *").reason


def test_game_has_at_most_as_many_moves_as_a_tree() -> None:
    circle = "Nf3 Nf6 Ng1 Ng8 " * (MOVES_MAX // 4)
    assert len(tree_of(f"1. {circle}*").moves) == MOVES_MAX
    assert "at most 20000 moves" in skipped(f"1. {circle} Nf3 *").reason


def test_nul_is_removed() -> None:
    (game,) = read(b'[White "A\0B"]\n\n1. e4 {x\0y} *\0')
    assert isinstance(game, ReadGame)
    assert game.headers["White"] == "AB"
    assert game.tree.moves[0].annotation.text == "xy"


def test_text_without_games_has_none() -> None:
    assert read("") == []
    assert read("Dear members,\n\nthe 1st round begins at 6. [See you]\n(all 12 of you)\n") == []
    assert count_games(b"nothing here") == 0


@pytest.mark.parametrize("name", sorted({*FILES, "broken"} - {"comments_and_escapes"}))
def test_number_of_games_is_estimated_without_parsing(name: str) -> None:
    assert abs(count_games((PGN / f"{name}.pgn").read_bytes()) - len(file(name))) <= 1


def test_games_are_read_one_at_a_time() -> None:
    first = list(islice(read_games(b"1. e4 *\n\n" * 100_000), 3))
    assert [one.number for one in first] == [1, 2, 3]


MAIN_LINES = [
    "club_championship",
    "chess960",
    "positions",
    "study_of_a_teacher",
    "annotated_latin1",
    "null_moves",
]


@pytest.mark.parametrize("name", MAIN_LINES)
def test_main_line_is_the_one_that_other_programs_read(name: str) -> None:
    data = (PGN / f"{name}.pgn").read_bytes()
    handle = io.StringIO(data.decode("cp1252" if "latin1" in name else "utf-8"))
    for game in games(name):
        theirs = chess.pgn.read_game(handle)
        assert theirs is not None
        board = theirs.board()
        line = [board.uci(move) for move in theirs.mainline_moves()]
        mine = [one.uci for index, one in enumerate(game.tree.moves) if one.parent == index - 1]
        assert mine[: len(line)] == line


#: Files that would take a day if the time grew with the square of their length.
HOSTILE: dict[str, Callable[[int], str]] = {
    "parentheses": lambda n: "1. e4 " + "(" * n,
    "variations in one another": lambda n: "1. e4 " + "(1. e4 " * (n // 7),
    "variations that say the same": lambda n: "1. e4 " + "(1. e4) " * (n // 8),
    "braces": lambda n: "1. e4 " + "{" * n,
    "empty comments": lambda n: "1. e4 " + "{}" * (n // 2),
    "comments that never close": lambda n: '[A "x"]\n\n{' * (n // 10),
    "comments closed at the end": lambda n: '[A "x"]\n\n{' * (n // 10) + "}",
    "a long comment": lambda n: "1. e4 {" + "[%clk " * (n // 6) + "}",
    "commands in one another": lambda n: (
        ("1. e4 {" + "[%cal " * 1500 + "Ge2e4]" * 800 + "}\n\n") * (n // 14_000)
    ),
    "empty lines": lambda n: "1. e4" + "\n" * n + "e5",
    "blanks": lambda n: "1. e4" + " " * n + "{" + " \n" * 5_000 + "}",
    "digits": lambda n: "1. e4 " + "1" * n,
    "headers": lambda n: '[A "x"]\n' * (n // 8),
    "open headers": lambda n: '[A "' + '\\"' * (n // 2),
    "brackets": lambda n: "1. e4 " + "[" * n,
    "semicolons": lambda n: "1. e4" + "\n;x" * (n // 3),
    "results": lambda n: "1. e4 foo " + "1-0 " * (n // 4),
    "suffixes": lambda n: "1. e4 " + "!" * n,
    "a long word": lambda n: "1. e4 " + "N" * n,
    "moves": lambda n: "Nf3 Nf6 Ng1 Ng8 " * (n // 16),
    "bytes": lambda n: "".join(map(chr, range(256))) * (n // 256),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_file_is_parsed_in_bounded_time(kind: str) -> None:
    found = read(HOSTILE[kind](500_000))
    assert len(found) <= 500_000
    assert count_games(HOSTILE[kind](500_000).encode()) >= 0


@pytest.mark.parametrize("gap", ["\n", "\n%", "1. ", " \n", "1 . "])
def test_move_after_a_long_gap_is_parsed(gap: str) -> None:
    text = f"1. e4 {gap * 2_500}\ne5 2. Nf3 *\n\n1. d4 *"
    assert [paths(one.tree) for one in read_games(text.encode()) if isinstance(one, ReadGame)] == [
        ["e2e4", "e2e4.e7e5", "e2e4.e7e5.g1f3"],
        ["d2d4"],
    ]
