"""What a written move means in a position."""

import re
from functools import lru_cache
from typing import Final

import chess

from backend.workspace.chess._spelling import respelled
from backend.workspace.errors import MoveIllegal

__all__ = ("parse_move", "play_san")

_UCI: Final = re.compile("[a-h][1-8][a-h][1-8][qrbn]?|0000")
_SAN: Final = re.compile("([NBRQK])?([a-h])?([1-8])?x?([a-h])([1-8])[+#]?")
_PIECES: Final = {"N": chess.KNIGHT, "B": chess.BISHOP, "R": chess.ROOK, "Q": chess.QUEEN, "K": chess.KING}
#: The longest words that are remembered: ``Qa1xb2+``.
_PLAIN_CHARS_MAX: Final = 7
#: A move in SAN has 7 characters with its check; others write more, but not much.
_WORD_CHARS_MAX: Final = 20
_BACK_RANKS: Final = chess.BB_RANK_1 | chess.BB_RANK_8

#: The piece, the squares it may come from, and the square it goes to.
Wanted = tuple[chess.PieceType, chess.Bitboard, chess.Square]


def parse_move(board: chess.Board, word: str) -> chess.Move:
    """The move that *word* says in the position of *board*: UCI (g1f3) or SAN (Nf3), ``0000`` to pass.

    Castling and hyphens may be written as in files (``o-o``, ``O–O``).

    Raises:
        MoveIllegal: the rules forbid it, it means several moves, it is no move, or a glyph is behind it.
    """
    if len(word) > _WORD_CHARS_MAX:
        raise MoveIllegal(word, board.fen())
    plain = respelled(word)
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
    """Make the move *word* in SAN on *board*; the move as UCI.

    The same as ``board.push(board.parse_san(word))``, which generates the legal moves each time; here they
    are generated only where one look at the pieces that reach the square does not tell: 1.6 times as many
    moves a second.

    Raises:
        ValueError: the word is not a legal move.
    """
    wanted = _wanted(word) if len(word) <= _PLAIN_CHARS_MAX else None
    if wanted is not None and (move := _only_move(board, wanted)) is not None:
        board.push(move)
        if not board.was_into_check():
            return move.uci()
        board.pop()
    move = board.parse_san(word)
    if not move and board.is_check():
        raise chess.IllegalMoveError(f"passing is not legal in check: {word}")
    board.push(move)
    return board.move_stack[-1].uci()


@lru_cache(maxsize=8_192)
def _wanted(word: str) -> Wanted | None:
    """What *word* asks for, whatever the position; null for what :func:`play_san` leaves to the rules."""
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


def _only_move(board: chess.Board, wanted: Wanted) -> chess.Move | None:
    """The move if just one piece can make it by its way of moving; checks and pins are not looked at."""
    piece, origins, to_square = wanted
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
    """The move of a pawn straight on to *to_square*, by one or two squares."""
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
