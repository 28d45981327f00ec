"""The PGN file of the club's story, and its comparison with the exported files."""

import io

import chess.pgn
import pytest
from backend.demo._club_games import GAMES, club_match
from backend.demo._club_steps import missing_games


def read(pgn: str) -> list[chess.pgn.Game]:
    handle = io.StringIO(pgn)
    return list(iter(lambda: chess.pgn.read_game(handle), None))


def test_club_match_has_100_different_legal_games() -> None:
    games = read(club_match())
    assert len(games) == GAMES == 100
    assert [game.errors for game in games] == [[]] * GAMES
    assert len({tuple(game.mainline_moves()) for game in games}) == GAMES


def test_each_game_has_annotations_and_nested_variations() -> None:
    for game in read(club_match()):
        main = list(game.mainline())
        assert any(node.nags for node in main)
        assert any(node.clock() for node in main)
        assert any(node.arrows() for node in main)
        assert any(game.headers["White"] in node.comment for node in main)
        beside = [branch for node in [game, *main] for branch in node.variations[1:]]
        assert any(len(node.variations) > 1 for branch in beside for node in [branch, *branch.mainline()])


def test_missing_games_ignores_order_and_line_breaks() -> None:
    games = club_match().split("\n[Event")
    turned = "\n[Event".join([games[0], *reversed(games[1:])])
    assert turned != club_match()
    assert missing_games(club_match(), turned.replace(" 5. ", "\n5.\n")) == []


@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        ("$1", "$2"),
        ("(4. d3 Be7) ", ""),
        ("agree:", "agree,"),
        ("Gd2d4", "Rd2d4"),
        ("[%clk 1:00:30]", "[%clk 1:00:31]"),
        ('"Łukasz"', '"Lukasz"'),
    ],
)
def test_missing_games_finds_any_change_of_a_game(was: str, becomes: str) -> None:
    assert missing_games(club_match(), club_match().replace(was, becomes, 1))


def test_missing_games_names_lost_and_repeated_games() -> None:
    first, second = '[Event "A"]\n\n1. e4 *\n', '[Event "B"]\n\n1. d4 *\n'
    assert missing_games(first + second, second) == ['[Event "A"] 1. e4 *']
    assert missing_games(first + second, first + second + second) == ['[Event "B"] 1. d4 *'] * 3
