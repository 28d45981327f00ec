"""Errors of studies: the rules of chess, PGN, and the optional package ``chess``.

The routes document these errors even if the package ``chess`` is not installed. Therefore this module is not
in :mod:`backend.workspace.chess`, which imports the package.

::

    RelayboxError
    ├── ChessNotInstalled          501
    └── ChessError                 422 over HTTP, unless another status is named
        ├── MoveNotFound           no move has this path
        ├── MoveIllegal            the move is illegal in its position
        ├── MoveExists             409: the move exists already
        ├── VariationsFull         the move has the maximum number of variations
        ├── MovesFull              the chapter has the maximum number of moves
        ├── VariationFirst         promote: the move is the first of its variations
        ├── VariationLast          demote: the move is the last of its variations
        ├── AnnotationInvalid      the annotation is too long, or PGN cannot express it
        ├── PositionInvalid        the starting position (FEN) or the variant is invalid
        └── ClipPathMissing        an export with mode=clip has no path of a first move
"""

from importlib.util import find_spec
from typing import Final

from relaybox.errors import RelayboxError

__all__ = (
    "AnnotationInvalid",
    "ChessError",
    "ChessNotInstalled",
    "ClipPathMissing",
    "MoveExists",
    "MoveIllegal",
    "MoveNotFound",
    "MovesFull",
    "PositionInvalid",
    "VariationFirst",
    "VariationLast",
    "VariationsFull",
    "require_chess",
)

#: Maximum number of characters that a message quotes of a client's text.
_QUOTED_CHARS_MAX: Final = 60


class ChessNotInstalled(RelayboxError):
    """Raised for requests about studies when the package ``chess`` is not installed (501)."""

    error_code = "CHESS_NOT_INSTALLED"

    def __init__(self) -> None:
        super().__init__(
            "studies need the package chess, which the extra 'chess' installs; in a clone of Relaybox, "
            "run: pip install ./packages/types ./packages/relaybox ./packages/shared-types "
            "'./apps/backend[chess]'"
        )


class ChessError(RelayboxError):
    """Base class of errors caused by the rules of chess, by PGN, or by the limits of a study (422)."""

    error_code = "CHESS_ERROR"


class MoveNotFound(ChessError):
    """Raised when the chapter has no such move (422).

    If the URL names the move, the route responds with :class:`ResourceNotFound` (404) instead.
    """

    error_code = "MOVE_NOT_FOUND"

    def __init__(self, path: str) -> None:
        super().__init__(
            f"the chapter has no move with the path {quoted(path)}; read the chapter again and send the "
            "move_path of one of its moves"
        )


class MoveIllegal(ChessError):
    """Raised when a move is illegal in its position, or its text is not a move (422)."""

    error_code = "MOVE_ILLEGAL"

    def __init__(self, move: str, fen: str) -> None:
        form = "send SAN (Nf3) or UCI (g1f3), and glyphs in annotation.nags"
        super().__init__(f"{quoted(move)} is not a legal move in {fen}; {form}")


class MoveExists(ChessError):
    """Raised when the move to add exists already (409)."""

    error_code = "MOVE_EXISTS"

    def __init__(self, path: str) -> None:
        super().__init__(f"the move {quoted(path)} exists already; add moves after it, or promote it")


class VariationsFull(ChessError):
    """Raised when a move has the maximum number of variations (422)."""

    error_code = "VARIATIONS_FULL"

    def __init__(self, variations_max: int) -> None:
        super().__init__(f"a move has at most {variations_max} variations; delete one first")


class MovesFull(ChessError):
    """Raised when a tree has the maximum number of moves (422)."""

    error_code = "MOVES_FULL"

    def __init__(self, moves_max: int) -> None:
        super().__init__(f"a chapter has at most {moves_max} moves; add the move to another chapter")


class VariationFirst(ChessError):
    """Raised when the move to promote is the first of its variations (422)."""

    error_code = "VARIATION_FIRST"

    def __init__(self, path: str) -> None:
        super().__init__(
            f"the move {quoted(path)} has no variation above it; promote the first move of the variation "
            "that contains it"
        )


class VariationLast(ChessError):
    """Raised when the move to demote is the last of its variations (422)."""

    error_code = "VARIATION_LAST"

    def __init__(self, path: str) -> None:
        super().__init__(f"the move {quoted(path)} has no variation below it, so it cannot be demoted")


class AnnotationInvalid(ChessError):
    """Raised when an annotation is too long, or PGN cannot express it (422)."""

    error_code = "ANNOTATION_INVALID"


class PositionInvalid(ChessError):
    """Raised when the headers contain no legal starting position (422)."""

    error_code = "POSITION_INVALID"


class ClipPathMissing(ChessError):
    """Raised when a clip, a part of a chapter, is requested without the path of its first move (422)."""

    error_code = "CLIP_PATH_MISSING"

    def __init__(self) -> None:
        super().__init__("mode=clip begins at a move of the chapter; send the path of that move in move_path")


def require_chess() -> None:
    """Require that :mod:`backend.workspace.chess` can be imported.

    Raises:
        ChessNotInstalled: The package ``chess`` is not installed.
    """
    if find_spec("chess") is None:
        raise ChessNotInstalled


def quoted(text: str) -> str:
    """Return *text* in quotation marks, cut after 60 characters."""
    cut = text if len(text) <= _QUOTED_CHARS_MAX else f"{text[:_QUOTED_CHARS_MAX]}…"
    return f'"{cut}"'
