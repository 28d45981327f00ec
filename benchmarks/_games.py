"""Generate PGN files with legal games that have headers, clocks, comments and variations."""

import io
import random
from functools import cache
from typing import Final

import chess
import chess.pgn

__all__ = ("moves_in", "pgn_file")

_PLIES: Final = 80
#: Every tenth ply has a comment and a glyph; the next constant is the interval of variations.
_REMARK_EVERY: Final = 10
_VARIATION_EVERY: Final = 20
_VARIATION_PLIES: Final = 6


@cache
def pgn_file(games: int) -> str:
    """Return *games* random games as PGN; always the same, because the random seed is fixed."""
    chance = random.Random(7)
    return "\n\n".join(str(_game(number, chance)) for number in range(1, games + 1)) + "\n"


def moves_in(text: str) -> int:
    """Count the moves of the PGN file *text*, including variations."""
    handle, moves = io.StringIO(text), 0
    while (game := chess.pgn.read_game(handle)) is not None:
        nodes: list[chess.pgn.GameNode] = [game]
        while nodes:
            children = nodes.pop().variations
            moves += len(children)
            nodes += children
    return moves


def _game(number: int, chance: random.Random) -> chess.pgn.Game:
    game = chess.pgn.Game()
    players = {"White": f"Müller, {number}", "Black": "Kovač", "Result": "1/2-1/2", "ECO": "C50"}
    game.headers.update(
        {"Event": "Club", "Site": "Graz", "Date": "2024.01.02", "Round": str(number), **players}
    )
    node: chess.pgn.GameNode = game
    board = chess.Board()
    for ply in range(_PLIES):
        legal = list(board.legal_moves)
        if not legal:
            break
        parent, move = node, chance.choice(legal)
        node = parent.add_variation(move)
        node.set_clock(600 - ply * 3)
        if ply % _REMARK_EVERY == 5:
            node.comment += " A remark on this move, of some length."
            node.nags.add(chance.choice([1, 2, 5, 6]))
        if ply % _VARIATION_EVERY == 15:
            _vary(parent, board.copy(stack=False), move, chance)
        board.push(move)
    return game


def _vary(parent: chess.pgn.GameNode, board: chess.Board, main: chess.Move, chance: random.Random) -> None:
    for _ in range(_VARIATION_PLIES):
        legal = [move for move in board.legal_moves if move != main]
        if not legal:
            return
        move = chance.choice(legal)
        parent = parent.add_variation(move)
        board.push(move)
        main = chess.Move.null()
