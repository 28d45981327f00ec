"""The notation (SAN), position and ply of each move of a tree."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import chess

from backend.workspace.chess._headers import start_board
from backend.workspace.chess._tree import START, MoveTree

__all__ = ("RenderedMove", "positions", "render_moves")


@dataclass(frozen=True, slots=True)
class RenderedMove:
    """The fields of a move that follow from the moves before it, and are not stored."""

    #: Standard algebraic notation; a pass is ``--``.
    san: str
    #: The position after the move.
    fen: str
    #: Half-moves since the start of the game, including this one, by the counters of the position.
    ply: int


def render_moves(tree: MoveTree, headers: Mapping[str, str]) -> list[RenderedMove]:
    """Return the notation and position of each move of *tree*, in its order.

    *headers* must have the starting position of the tree; the moves are not checked again.

    Raises:
        PositionInvalid: The headers contain no legal position.
    """
    rendered: list[RenderedMove] = []
    for board, move in positions(tree, start_board(headers)):
        san = board.san_and_push(move)
        rendered.append(RenderedMove(san, board.fen(), board.ply()))
    return rendered


def positions(tree: MoveTree, board: chess.Board) -> Iterator[tuple[chess.Board, chess.Move]]:
    """Yield for each move of *tree*, in its order, the position before it, and the move.

    The board is always *board*, at first the starting position; the caller makes the move on it before it
    takes the next one.
    """
    line = [START]
    for index, one in enumerate(tree.moves):
        while line[-1] != one.parent:
            line.pop()
            board.pop()
        line.append(index)
        # The moves of a tree are legal; checking again would take twice as long as making them.
        yield board, chess.Move.from_uci(one.uci)
