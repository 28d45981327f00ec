"""Distribution of games over studies, stored text of files, and limits of one import."""

import pytest
from backend.workspace.errors import PgnInvalid, PgnTooManyGames
from backend.workspace.pgn._games import GameReader
from backend.workspace.pgn._parsed_file import (
    CHAPTERS_MAX,
    GAMES_MAX,
    Game,
    ParsedFile,
    decode_file,
    encode_file,
    split_into_studies,
)
from pydantic_core import from_json
from shared_types.workspace_pgn_api import SkippedPgn


def file_of(marks: str) -> ParsedFile:
    """Return a file whose games are imported (``.``) or left out (``x``)."""
    numbered = list(enumerate(marks, 1))
    games = [Game(number=n, title="", headers={}, moves=b"{}") for n, mark in numbered if mark == "."]
    skipped = [SkippedPgn(game=n, line=n, reason="") for n, mark in numbered if mark == "x"]
    return ParsedFile(games=games, skipped=skipped)


def reader(text: str, *, strict: bool = False, event_bytes_max: int = 1_000_000) -> GameReader:
    return GameReader(text.encode(), strict=strict, event_bytes_max=event_bytes_max)


@pytest.mark.parametrize(("games", "studies"), [(1, 1), (64, 1), (65, 2), (128, 2), (129, 3)])
def test_games_are_divided_into_studies_of_64_chapters(games: int, studies: int) -> None:
    parts = split_into_studies(file_of("." * games))
    assert len(parts) == studies
    assert [game.number for part in parts for game in part.games] == list(range(1, games + 1))
    assert all(len(part.games) == CHAPTERS_MAX for part in parts[:-1])
    assert [(part.first, part.last) for part in parts][-1] == ((studies - 1) * CHAPTERS_MAX + 1, games)


def test_skipped_game_belongs_to_the_study_of_its_neighbours() -> None:
    first, second = split_into_studies(file_of("x" + "." * 64 + "xx" + "." + "x"))
    assert [one.game for one in first.skipped] == [1, 66, 67]
    assert [one.game for one in second.skipped] == [69]


def test_stored_file_has_the_same_bytes_after_unpacking() -> None:
    data = bytes(range(256)) * 100
    assert decode_file(encode_file(data)) == data
    assert len(encode_file(b"1. e4 e5 " * 10_000)) < 5_000


def test_file_is_parsed_in_batches() -> None:
    games = reader('[White "A"]\n\n1. e4 *\n\n' * 5)
    assert (games.read(2), games.seen) == (True, 2)
    assert (games.read(2), games.seen) == (True, 4)
    assert (games.read(2), games.seen) == (False, 5)
    [game, *_] = games.file().games
    assert (game.number, game.headers["White"], from_json(game.moves)["moves"][0]["uci"]) == (1, "A", "e2e4")


def test_skipped_game_is_counted_and_ends_a_strict_import() -> None:
    text = "1. e4 *\n\n1. e5 *\n\n1. d4 *\n"
    games = reader(text)
    assert (games.read(9), games.games, games.seen) == (False, 2, 3)
    with pytest.raises(PgnInvalid, match="game 2, line 3"):
        reader(text, strict=True).read(9)


def test_import_over_the_games_limit_is_refused_even_if_none_is_valid() -> None:
    games = reader("1. e5 *\n\n" * (GAMES_MAX + 1))
    assert games.read(GAMES_MAX)
    with pytest.raises(PgnTooManyGames, match="10,000"):
        games.read(1)


def test_game_larger_than_an_event_is_skipped() -> None:
    text = "1. e4 {" + "x," * 1_500 + "} *"
    for room, taken in ((12_000 + 6_000, 1), (12_000 + 4_000, 0)):
        games = reader(text, event_bytes_max=room)
        games.read(9)
        assert games.games == taken
    with pytest.raises(PgnInvalid, match="split its variations"):
        games.file()
