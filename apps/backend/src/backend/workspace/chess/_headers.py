"""The tag pairs of a chapter: which there are, and the position they begin at."""

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
    "completed",
    "start_board",
    "title_of",
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
"""The seven tags every game has, in their order, and what stands for "unknown" (PGN standard, 8.1.1)."""

RESULTS: Final = frozenset({"1-0", "0-1", "1/2-1/2", "*"})

_FEN_CHARS_MAX: Final = 100
_FEN_COUNT_MAX: Final = 9_999
#: What others call the rules of chess, and those of Chess960, in the tag ``Variant``.
_STANDARD: Final = frozenset({"", "?", "standard", "chess", "classical", "normal", "from position"})
_CHESS960: Final = frozenset({"chess960", "chess 960", "fischerandom", "fischerrandom", "fischer random"})
#: Positions in which the rules do not say what a move is.
_UNPLAYABLE: Final = (
    chess.STATUS_EMPTY
    | chess.STATUS_NO_WHITE_KING
    | chess.STATUS_NO_BLACK_KING
    | chess.STATUS_TOO_MANY_KINGS
    | chess.STATUS_PAWNS_ON_BACKRANK
    | chess.STATUS_OPPOSITE_CHECK
)


def completed(headers: Mapping[str, str], marker: str = "*") -> dict[str, str]:
    """*headers* with the seven tag roster in front, and ``SetUp`` beside a ``FEN``.

    *marker* is the result at the end of the moves; it counts where the headers say none that PGN knows.
    """
    made = {**ROSTER, **headers}
    if made["Result"] not in RESULTS - {"*"} and (marker != "*" or made["Result"] in {"", "?"}):
        made["Result"] = marker
    if "FEN" in made:
        made["SetUp"] = "1"
    return made


def start_board(headers: Mapping[str, str]) -> chess.Board:
    """The position before the first move: that of ``FEN``, else the usual one; Chess960 by ``Variant``.

    Raises:
        PositionInvalid: another variant, or a FEN that is none or that chess cannot be played from.
    """
    variant = headers.get("Variant", "").strip().lower()
    if variant not in _STANDARD | _CHESS960:
        raise PositionInvalid(
            f"the variant {quoted(headers['Variant'])} is not supported; chess and Chess960 are"
        )
    chess960 = variant in _CHESS960
    if "FEN" not in headers:
        return chess.Board(chess960=chess960)
    fen = headers["FEN"]
    if len(fen) > _FEN_CHARS_MAX:
        raise PositionInvalid(f"{quoted(fen)} is not a position in FEN: it is too long")
    try:
        board = chess.Board(fen, chess960=chess960)
    except ValueError as error:
        raise PositionInvalid(f"{quoted(fen)} is not a position in FEN: {error}") from None
    if board.status() & _UNPLAYABLE or max(board.fullmove_number, board.halfmove_clock) > _FEN_COUNT_MAX:
        raise PositionInvalid(f"chess cannot be played from {quoted(fen)}; check kings, pawns and who moves")
    # Castling rights that only Chess960 has say as much as the tag.
    board.chess960 = board.chess960 or board.has_chess960_castling_rights()
    return board


def title_of(headers: Mapping[str, str]) -> str | None:
    """What a game is called: its ``ChapterName``, else the players, else the event; null without any."""
    stripped = {name: UNPRINTABLE.sub(" ", value).strip() for name, value in headers.items()}
    known = {name: value for name, value in stripped.items() if value not in {"", "?"}}
    if "ChapterName" in known:
        return known["ChapterName"][:TITLE_CHARS_MAX]
    if "White" in known or "Black" in known:
        return f"{known.get('White', '?')} – {known.get('Black', '?')}"[:TITLE_CHARS_MAX]
    return known["Event"][:TITLE_CHARS_MAX] if "Event" in known else None
