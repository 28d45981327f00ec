"""Compute notation (SAN), position and ply of each move of a tree."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import chess

from backend.workspace.chess._headers import start_board
from backend.workspace.chess._tree import START, MoveTree

__all__ = ("RenderedMove", "positions", "render_moves")


@dataclass(frozen=True, slots=True)
class RenderedMove:
    """The fields of a move that are computed from the moves before, and therefore not stored."""

    #: Standard algebraic notation; a null move is ``--``.
    san: str
    #: The position after the move, in FEN.
    fen: str
    #: Number of half-moves since the start of the game, including this move; computed from the FEN's move
    #: number.
    ply: int


def render_moves(tree: MoveTree, headers: Mapping[str, str]) -> list[RenderedMove]:
    """Return notation, position and ply of each move of *tree*, in the order of the tree.

    *headers* are those of the chapter, with the starting position. The moves are not checked again.

    Raises:
        PositionInvalid: The headers contain no legal position.
    """
    rendered: list[RenderedMove] = []
    for board, move in positions(tree, start_board(headers)):
        san = board.san_and_push(move)
        rendered.append(RenderedMove(san, board.fen(), board.ply()))
    return rendered


def positions(tree: MoveTree, board: chess.Board) -> Iterator[tuple[chess.Board, chess.Move]]:
    """Yield each move of *tree* in the order of the tree, with the position before the move.

    The yielded board is always the object *board*, at first the starting position. The caller must make the
    move on this board before requesting the next move.
    """
    line = [START]
    for index, one in enumerate(tree.moves):
        while line[-1] != one.parent:
            line.pop()
            board.pop()
        line.append(index)
        # The moves of a tree are legal; checking them again would triple the time.
        yield board, chess.Move.from_uci(one.uci)
