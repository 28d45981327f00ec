"""The file that the story of the club imports, and what is said of it when it comes back."""

import io

import chess.pgn
import pytest
from backend.demo.club._export import missing
from backend.demo.club._games import GAMES, club_match


def read(pgn: str) -> list[chess.pgn.Game]:
    handle = io.StringIO(pgn)
    return list(iter(lambda: chess.pgn.read_game(handle), None))


def test_the_file_has_100_games_by_the_rules_of_which_none_is_another() -> None:
    games = read(club_match())
    assert len(games) == GAMES == 100
    assert [game.errors for game in games] == [[]] * GAMES
    assert len({tuple(game.mainline_moves()) for game in games}) == GAMES


def test_every_game_has_a_glyph_a_clock_an_arrow_a_text_and_a_variation_in_a_variation() -> None:
    for game in read(club_match()):
        main = list(game.mainline())
        assert any(node.nags for node in main)
        assert any(node.clock() for node in main)
        assert any(node.arrows() for node in main)
        assert any(game.headers["White"] in node.comment for node in main)
        beside = [branch for node in [game, *main] for branch in node.variations[1:]]
        assert any(len(node.variations) > 1 for branch in beside for node in [branch, *branch.mainline()])


def test_a_file_whose_games_stand_in_another_order_and_break_their_lines_elsewhere_is_the_same() -> None:
    games = club_match().split("\n[Event")
    turned = "\n[Event".join([games[0], *reversed(games[1:])])
    assert turned != club_match()
    assert missing(club_match(), turned.replace(" 5. ", "\n5.\n")) == []


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
def test_whatever_changes_in_one_game_is_noticed(was: str, becomes: str) -> None:
    assert missing(club_match(), club_match().replace(was, becomes, 1))


def test_a_game_that_is_lost_or_comes_twice_is_named() -> None:
    first, second = '[Event "A"]\n\n1. e4 *\n', '[Event "B"]\n\n1. d4 *\n'
    assert missing(first + second, second) == ['[Event "A"] 1. e4 *']
    assert missing(first + second, first + second + second) == ['[Event "B"] 1. d4 *'] * 3
