"""Complete the tag pairs of a chapter, and derive its starting position and its title from them."""

from collections.abc import Mapping
from typing import Final

import chess
from shared_types.workspace_api import UNPRINTABLE

from backend.workspace.errors import PositionInvalid, quoted

__all__ = (
    "HEADERS_MAX",
    "HEADER_CHARS_MAX",
    "RESULTS",
    "ROSTER",
    "TITLE_CHARS_MAX",
    "complete_headers",
    "game_title",
    "start_board",
)

HEADERS_MAX: Final = 64
HEADER_CHARS_MAX: Final = 1_000
TITLE_CHARS_MAX: Final = 200

ROSTER: Final[Mapping[str, str]] = {
    "Event": "?",
    "Site": "?",
    "Date": "????.??.??",
    "Round": "?",
    "White": "?",
    "Black": "?",
    "Result": "*",
}
"""The seven tags of each game, in their order, with their values for "unknown" (PGN standard, 8.1.1)."""

RESULTS: Final = frozenset({"1-0", "0-1", "1/2-1/2", "*"})

_FEN_CHARS_MAX: Final = 100
_FEN_COUNT_MAX: Final = 9_999
#: Values of the tag ``Variant`` that mean standard chess, and those that mean Chess960.
_STANDARD: Final = frozenset({"", "?", "standard", "chess", "classical", "normal", "from position"})
_CHESS960: Final = frozenset({"chess960", "chess 960", "fischerandom", "fischerrandom", "fischer random"})
#: Errors of the package chess for positions from which no game can be played.
_UNPLAYABLE: Final = (
    chess.STATUS_EMPTY
    | chess.STATUS_NO_WHITE_KING
    | chess.STATUS_NO_BLACK_KING
    | chess.STATUS_TOO_MANY_KINGS
    | chess.STATUS_PAWNS_ON_BACKRANK
    | chess.STATUS_OPPOSITE_CHECK
)


def complete_headers(headers: Mapping[str, str], marker: str = "*") -> dict[str, str]:
    """Return *headers* with the seven tag roster first, and with ``SetUp`` if there is a ``FEN``.

    *marker*: the result that the file has after the last move, or ``*`` if it has none. ``1-0``, ``0-1`` and
    ``1/2-1/2`` replace ``Result`` unless ``Result`` is one of these already. ``*`` replaces ``Result`` only
    if that is empty or ``?``.
    """
    made = {**ROSTER, **headers}
    if made["Result"] not in RESULTS - {"*"} and (marker != "*" or made["Result"] in {"", "?"}):
        made["Result"] = marker
    if "FEN" in made:
        made["SetUp"] = "1"
    return made


def start_board(headers: Mapping[str, str]) -> chess.Board:
    """Return the starting position by the tags ``FEN`` and ``Variant``; without ``FEN``, the standard one.

    Raises:
        PositionInvalid: The variant is not supported, or the FEN is not a legal position.
    """
    variant = headers.get("Variant", "").strip().lower()
    if variant not in _STANDARD | _CHESS960:
        raise PositionInvalid(
            f"the variant {quoted(headers['Variant'])} is not supported; use standard chess or Chess960"
        )
    chess960 = variant in _CHESS960
    if "FEN" not in headers:
        return chess.Board(chess960=chess960)
    fen = headers["FEN"]
    if len(fen) > _FEN_CHARS_MAX:
        raise PositionInvalid(f"{quoted(fen)} is not a position in FEN: the text is too long")
    try:
        board = chess.Board(fen, chess960=chess960)
    except ValueError as error:
        raise PositionInvalid(f"{quoted(fen)} is not a position in FEN: {error}") from None
    if board.status() & _UNPLAYABLE or max(board.fullmove_number, board.halfmove_clock) > _FEN_COUNT_MAX:
        raise PositionInvalid(
            f"chess cannot be played from {quoted(fen)}; check the kings, the pawns and the side to move"
        )
    # Castling rights that exist only in Chess960 imply the variant, without the tag.
    board.chess960 = board.chess960 or board.has_chess960_castling_rights()
    return board


def game_title(headers: Mapping[str, str]) -> str | None:
    """Return the title of a game: the tag ``ChapterName``, else the players, else the event, else None."""
    stripped = {name: UNPRINTABLE.sub(" ", value).strip() for name, value in headers.items()}
    known = {name: value for name, value in stripped.items() if value not in {"", "?"}}
    if "ChapterName" in known:
        return known["ChapterName"][:TITLE_CHARS_MAX]
    if "White" in known or "Black" in known:
        return f"{known.get('White', '?')} – {known.get('Black', '?')}"[:TITLE_CHARS_MAX]
    return known["Event"][:TITLE_CHARS_MAX] if "Event" in known else None
