"""A tree as a board shows it: SAN, the position and the ply of each move."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import chess

from backend.workspace.chess._headers import start_board
from backend.workspace.chess._tree import START, MoveTree

__all__ = ("RenderedMove", "positions", "render_moves")


@dataclass(frozen=True, slots=True)
class RenderedMove:
    """What a tree does not store of a move, because it follows."""

    #: The move in standard algebraic notation; passing is ``--``.
    san: str
    #: The position after the move.
    fen: str
    #: Half-moves since the beginning of the game, this one included, as the position's counters have it.
    ply: int


def render_moves(tree: MoveTree, headers: Mapping[str, str]) -> list[RenderedMove]:
    """For each move of *tree*, in its order, what a board shows.

    The headers are those that the tree was made with: whether its moves are legal is not asked again.

    Raises:
        PositionInvalid: the headers name no position.
    """
    shown: list[RenderedMove] = []
    for board, move in positions(tree, start_board(headers)):
        san = board.san_and_push(move)
        shown.append(RenderedMove(san, board.fen(), board.ply()))
    return shown


def positions(tree: MoveTree, board: chess.Board) -> Iterator[tuple[chess.Board, chess.Move]]:
    """Yield for each move of *tree*, in its order, the position before it, and the move.

    The board is always *board*, which begins as the position before the tree; the caller makes the move on it
    before it asks for the next one.
    """
    line = [START]
    for index, one in enumerate(tree.moves):
        while line[-1] != one.parent:
            line.pop()
            board.pop()
        line.append(index)
        # Legal when it came into the tree; to ask again takes twice as long as to make it.
        yield board, chess.Move.from_uci(one.uci)
