"""Parse moves in SAN or UCI in a position."""

import re
from functools import lru_cache
from typing import Final

import chess

from backend.workspace.chess._spelling import respell
from backend.workspace.errors import MoveIllegal

__all__ = ("parse_move", "play_san")

_UCI: Final = re.compile("[a-h][1-8][a-h][1-8][qrbn]?|0000")
_SAN: Final = re.compile("([NBRQK])?([a-h])?([1-8])?x?([a-h])([1-8])[+#]?")
_PIECES: Final = {"N": chess.KNIGHT, "B": chess.BISHOP, "R": chess.ROOK, "Q": chess.QUEEN, "K": chess.KING}
#: Longer words than ``Qa1xb2+`` are not cached.
_PLAIN_CHARS_MAX: Final = 7
#: Longer words are not moves: SAN has at most 7 characters with the check, other notations a few more.
_WORD_CHARS_MAX: Final = 20
_BACK_RANKS: Final = chess.BB_RANK_1 | chess.BB_RANK_8

#: A parsed move: the piece, the squares from which it may move, and its target square.
SanMove = tuple[chess.PieceType, chess.Bitboard, chess.Square]


def parse_move(board: chess.Board, word: str) -> chess.Move:
    """Parse a move in the position of *board*: UCI (g1f3) or SAN (Nf3); ``0000`` is a null move.

    Accepts lower case and dashes in castling, as files write them (``o-o``, ``O–O``).

    Raises:
        MoveIllegal: The move is illegal or ambiguous, the word is not a move, or an annotation such as ``!``
            follows it.
    """
    if len(word) > _WORD_CHARS_MAX:
        raise MoveIllegal(word, board.fen())
    plain = respell(word)
    if plain.nags:
        raise MoveIllegal(word, board.fen())
    try:
        move = board.parse_uci(word) if _UCI.fullmatch(word) else board.parse_san(plain.word)
    except ValueError:
        raise MoveIllegal(word, board.fen()) from None
    if not move and board.is_check():
        raise MoveIllegal(word, board.fen())
    return move


def play_san(board: chess.Board, word: str) -> str:
    """Make the move *word* in SAN on *board*; return it as UCI.

    Equivalent to ``board.push(board.parse_san(word))``, which generates all legal moves each time. This
    function generates them only if several pieces can reach the square, and makes 1.6 times as many moves per
    second.

    Raises:
        ValueError: The word is not a legal move.
    """
    san = _parse_san(word) if len(word) <= _PLAIN_CHARS_MAX else None
    if san is not None and (move := _only_move(board, san)) is not None:
        board.push(move)
        if not board.was_into_check():
            return move.uci()
        board.pop()
    move = board.parse_san(word)
    if not move and board.is_check():
        raise chess.IllegalMoveError(f"a null move is not legal in check: {word}")
    board.push(move)
    return board.move_stack[-1].uci()


@lru_cache(maxsize=8_192)
def _parse_san(word: str) -> SanMove | None:
    """Parse *word* without a position; None if :func:`play_san` must use ``board.parse_san`` instead."""
    found = _SAN.fullmatch(word)
    if found is None:
        return None
    letter, file, rank, to_file, to_rank = found.groups()
    to_square = chess.square(ord(to_file) - ord("a"), int(to_rank) - 1)
    origins = chess.BB_ALL
    if file:
        origins &= chess.BB_FILES[ord(file) - ord("a")]
    if rank:
        origins &= chess.BB_RANKS[int(rank) - 1]
    if letter:
        return _PIECES[letter], origins, to_square
    if rank or chess.BB_SQUARES[to_square] & _BACK_RANKS:
        return None
    return chess.PAWN, origins if file else chess.BB_EMPTY, to_square


def _only_move(board: chess.Board, san: SanMove) -> chess.Move | None:
    """Return the move if only one piece can make it; None otherwise. Checks and pins are not considered."""
    piece, origins, to_square = san
    own, target = board.occupied_co[board.turn], chess.BB_SQUARES[to_square]
    if piece == chess.PAWN and not origins:
        return _advance(board, to_square)
    if target & own or (piece == chess.PAWN and not target & board.occupied):
        return None
    candidates = board.attackers_mask(board.turn, to_square) & origins & board.pieces_mask(piece, board.turn)
    if not candidates or candidates & (candidates - 1):
        return None
    return chess.Move(candidates.bit_length() - 1, to_square)


def _advance(board: chess.Board, to_square: chess.Square) -> chess.Move | None:
    """Return the move of a pawn straight to *to_square*, by one or two squares; None if there is none."""
    back = -8 if board.turn else 8
    pawns = board.pawns & board.occupied_co[board.turn]
    if board.occupied & chess.BB_SQUARES[to_square]:
        return None
    if pawns & chess.BB_SQUARES[to_square + back]:
        return chess.Move(to_square + back, to_square)
    passed, first = to_square + back, to_square + 2 * back
    double = chess.square_rank(to_square) == (3 if board.turn else 4)
    if double and not board.occupied & chess.BB_SQUARES[passed] and pawns & chess.BB_SQUARES[first]:
        return chess.Move(first, to_square)
    return None
