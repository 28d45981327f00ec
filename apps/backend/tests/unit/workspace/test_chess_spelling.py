"""Spellings of files that are not PGN: they are read, and reported as normalised or dropped."""

import pytest
from backend.workspace.chess import Annotation, ReadGame, SkippedGame, count_games, read_games


def read(text: str) -> list[ReadGame]:
    found = list(read_games(text.encode()))
    assert not [one.reason for one in found if isinstance(one, SkippedGame)]
    return [one for one in found if isinstance(one, ReadGame)]


def notes(game: ReadGame) -> list[tuple[int, str, bool]]:
    return [(one.line, one.note, one.dropped) for one in game.notes]


def last_nags(game: ReadGame) -> tuple[int, ...]:
    return game.tree.moves[-1].annotation.nags


CASTLING = "1. e4 e5 2. Nf3 Nf6 3. Bc4 Bc5 4. "


@pytest.mark.parametrize(
    ("written", "result"),
    [
        ("1–0", "1-0"), ("0–1", "0-1"), ("1−0", "1-0"),
        ("½–½", "1/2-1/2"), ("1/2–1/2", "1/2-1/2"), ("½-½", "1/2-1/2"),
    ],
)  # fmt: skip
def test_result_with_a_dash_is_read_and_noted(written: str, result: str) -> None:
    [game] = read(f"1. e4 e5 {written}")
    assert game.headers["Result"] == result
    assert notes(game) == [(1, f"the result {written} is read as {result}", False)]
    [game] = read(f'[Result "{written}"]\n\n1. e4 e5')
    assert game.headers["Result"] == result
    assert notes(game) == [(1, f"the result {written} is read as {result}", False)]


@pytest.mark.parametrize(
    ("written", "castling"),
    [("o-o", "O-O"), ("O‑O", "O-O"), ("0–0", "O-O"), ("o‑o+", "O-O+"), ("O–O!", "O-O")],
)
def test_castling_with_small_letters_or_dashes_is_read(written: str, castling: str) -> None:
    [game] = read(f"{CASTLING}{written} *")
    assert game.tree.moves[-1].uci == "e1g1"
    assert notes(game) == [(1, f"{written.rstrip('!')} is read as {castling}", False)]


def test_castling_to_the_other_side_is_read_with_dashes() -> None:
    [game] = read("1. d4 d5 2. Nc3 Nc6 3. Bf4 Bf5 4. Qd2 Qd7 5. o‑o‑o O–O–O *")
    assert [one.uci for one in game.tree.moves[-2:]] == ["e1c1", "e8c8"]


@pytest.mark.parametrize(
    ("sign", "nag"), [("+--", 18), ("+–", 18), ("+−−", 18), ("--+", 19), ("–+", 19), ("□", 7)]
)
def test_sign_of_a_glyph_is_read_and_noted(sign: str, nag: int) -> None:
    [game] = read(f"1. e4 e5 {sign} *")
    assert last_nags(game) == (nag,)
    assert notes(game) == [(1, f"{sign} is read as the glyph ${nag}", False)]


def test_only_move_sign_may_directly_follow_its_move() -> None:
    [game] = read("1. e4 e5□ 2. Nf3□! *")
    assert [one.annotation.nags for one in game.tree.moves] == [(), (7,), (1, 7)]
    assert notes(game) == [(1, "□ is read as the glyph $7", False)]
    assert game.notes[0].count == 2


@pytest.mark.parametrize("check", ["++", " ++", "++!?", "++."])
def test_double_check_sign_is_read_and_noted(check: str) -> None:
    [game] = read(f"1. f3 e5 2. g4 Qh4{check} *")
    assert game.tree.moves[-1].uci == "d8h4"
    assert notes(game) == [(1, "++ after a move is read as a check", False)]


FORUM_NOTE = "[pgn] and [/pgn] around games are ignored"


@pytest.mark.parametrize(
    "text",
    [
        '[pgn][White "A"]\n\n1. e4 e5 *[/pgn]\n[PGN]\n[White "B"]\n\n1. d4 d5[/pgn]',
        "[pgn]1. e4 e5 *[/pgn]\n\n[pgn=500,400]1. d4 d5 *[/pgn]",
        '[pgn]\n[White "A"]\n\n1. e4 e5\n[/pgn]\n\n[pgn]\n[White "B"]\n[/pgn]\n',
    ],
)
def test_forum_tags_around_games_are_skipped(text: str) -> None:
    first, second = read(text)
    assert [one.uci for one in first.tree.moves] == ["e2e4", "e7e5"]
    assert second.number == 2
    assert {note for _, note, _ in notes(first) + notes(second)} == {FORUM_NOTE}
    assert abs(count_games(text.encode()) - 2) <= 1


def test_game_in_forum_tags_after_an_invalid_one_is_found() -> None:
    text = '[pgn][White "A"]\n\n1. e4 Ke4[/pgn]\n[pgn][White "B"]\n\n1. d4 *[/pgn]'
    refused, game = read_games(text.encode())
    assert isinstance(refused, SkippedGame)
    assert isinstance(game, ReadGame)
    assert game.headers["White"] == "B"


@pytest.mark.parametrize(
    "text",
    [
        "{a} {b}\n{c} 1. e4 *",
        "; a\n{b}\n;c\n1. e4 *",
        '{a}\n\n{b} ;c\n[Event "x"]\n\n1. e4 *',
        '{a} [Event "x"]\n;b\n[Site "y"]\n\n{c} 1. e4 *',
        "1. d4 *\n\n{a}\n\n{b} {c} 1. e4 *",
    ],
)
def test_comments_before_a_game_are_all_kept(text: str) -> None:
    *_, game = read(text)
    assert [one.uci for one in game.tree.moves] == ["e2e4"]
    assert game.tree.start == Annotation(text="a b c")
    assert game.notes == ()


def test_comments_before_a_game_that_are_too_long_are_reported() -> None:
    [game] = read("{" + "x" * 6_000 + "}{" + "y" * 6_000 + '}\n[Event "x"]\n\n1. e4 *')
    assert game.tree.start == Annotation()
    assert notes(game) == [(1, "comments before the game: more than 10,000 characters", True)]


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("1. e4 *\n\nsee you\n\n1. d4 *", (3, "text between games", True)),
        ("1. d4 *\n\nthe end", (3, "text between games", True)),
        ("1. d4 *\n\n\n{bye}", (4, "a comment after the last game", True)),
        ("1. d4 d5 (1... e5 1-0) *", (1, "a result inside a variation", True)),
        ("1. d4 d5\n($2) *", (2, "the glyph $2, which follows no move", True)),
        ("1. d4 *\n\n[Event \"x\"]\n\n$1 *", (5, "the glyph $1, which follows no move", True)),
        (
            '[Result "1-0"]\n\n1. d4 0-1',
            (3, "the result 0-1 after the moves: the header Result is 1-0", True),
        ),
        (
            '[Result "White"]\n\n1. d4 0-1',
            (1, 'the header Result "White": the moves end with 0-1', True),
        ),
        (
            '[White "A"]\n[White "B"]\n\n1. d4 *',
            (2, "the header White, which is repeated: the last value is used", True),
        ),
    ],
)  # fmt: skip
def test_dropped_content_is_reported(text: str, note: tuple[int, str, bool]) -> None:
    *_, game = read(text)
    assert notes(game) == [note]


@pytest.mark.parametrize(
    "text", ["1. e4 e5 0-1", "{a} 1. e4 {b} e5 $1 (1... c5) *", '[Result "*"]\n\n1. e4 1-0']
)
def test_file_that_follows_the_standard_has_no_notes(text: str) -> None:
    assert read(text)[0].notes == ()


@pytest.mark.parametrize("word", ["ep" * 2_000, "e4" + "." * 3_000, "□" * 5_000, "‑" * 5_000, "h4,"])
def test_unknown_word_refuses_only_its_game(word: str) -> None:
    refused, game = read_games(f"1. e4 {word} *\n\n1. d4 d5 *".encode())
    assert isinstance(refused, SkippedGame)
    assert refused.reason.startswith(f'"{word[:50]}')
    assert "at 1... is not a" in refused.reason
    assert isinstance(game, ReadGame)
    assert [one.uci for one in game.tree.moves] == ["d2d4", "d7d5"]


def test_eleventh_variation_with_an_unknown_word_is_refused() -> None:
    ten = "".join(f"(1. {at}{rank}) " for at in "abcdf" for rank in (3, 4))
    [game] = read_games(f"1. e4 {ten}(1. h4.) *".encode())
    assert isinstance(game, SkippedGame)
    assert "at most 10 variations" in game.reason


def test_notes_of_one_game_are_bounded_and_counted() -> None:
    headers = "".join(f'[N{at} "x"]\n[N{at} "y"]\n' for at in range(50))
    [game] = read(f"{headers}\n1. e4 *")
    assert len(game.notes) == 30
