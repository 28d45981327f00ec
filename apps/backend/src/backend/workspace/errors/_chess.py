"""The optional package ``chess``, and why a study refuses what chess does not allow.

Stands outside :mod:`backend.workspace.chess`, which cannot be imported without the package: routes
name these errors whether or not it is there.

::

    RelayboxError
    ├── ChessNotInstalled          501
    └── ChessError                 422 over HTTP unless said otherwise
        ├── MoveNotFound           no move has this path
        ├── MoveIllegal            the rules forbid it in this position
        ├── MoveExists             409: the move stands there already
        ├── VariationsFull         a move has its ten variations
        ├── MovesFull              the tree has as many moves as a tree may have
        ├── VariationFirst         there is nothing to pass upwards
        ├── VariationLast          there is nothing to pass downwards
        ├── AnnotationInvalid      too long, or not what PGN can say
        ├── PositionInvalid        FEN or variant
        └── ClipPathMissing        a clip begins at a move
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

#: What a client sent is repeated up to this length.
_QUOTED_CHARS_MAX: Final = 60


class ChessNotInstalled(RelayboxError):
    """Raised when a study is asked for and the package ``chess`` is not installed (501 over HTTP)."""

    error_code = "CHESS_NOT_INSTALLED"

    def __init__(self) -> None:
        super().__init__(
            "studies need the package chess, which the extra 'chess' installs; in a clone of Relaybox, "
            "run: pip install ./packages/types ./packages/relaybox ./packages/shared-types "
            "'./apps/backend[chess]'"
        )


class ChessError(RelayboxError):
    """Base of what a study refuses because of the rules of chess, of PGN, or of its own limits (422)."""

    error_code = "CHESS_ERROR"


class MoveNotFound(ChessError):
    """Raised when no move of the chapter has the path (422; a route that addresses it may say 404)."""

    error_code = "MOVE_NOT_FOUND"

    def __init__(self, path: str) -> None:
        super().__init__(f"the chapter has no move {quoted(path)}; read the chapter again")


class MoveIllegal(ChessError):
    """Raised when the rules forbid a move in the position, or the word is no move at all (422)."""

    error_code = "MOVE_ILLEGAL"

    def __init__(self, move: str, fen: str) -> None:
        form = "send SAN (Nf3) or UCI (g1f3), and glyphs in annotation.nags"
        super().__init__(f"{quoted(move)} is not a legal move in {fen}; {form}")


class MoveExists(ChessError):
    """Raised when the move stands at this place already (409)."""

    error_code = "MOVE_EXISTS"

    def __init__(self, path: str) -> None:
        super().__init__(f"the move {quoted(path)} is there already; go on from it, or promote it")


class VariationsFull(ChessError):
    """Raised when a move would get more variations than it may have (422)."""

    error_code = "VARIATIONS_FULL"

    def __init__(self, variations_max: int) -> None:
        super().__init__(f"a move has at most {variations_max} variations; delete one first")


class MovesFull(ChessError):
    """Raised when a tree would get more moves than it may have (422)."""

    error_code = "MOVES_FULL"

    def __init__(self, moves_max: int) -> None:
        super().__init__(f"a chapter has at most {moves_max} moves; go on in another chapter")


class VariationFirst(ChessError):
    """Raised when a move is to be promoted that is the first of its variations (422)."""

    error_code = "VARIATION_FIRST"

    def __init__(self, path: str) -> None:
        super().__init__(f"{quoted(path)} is the main move already; promote the variation it belongs to")


class VariationLast(ChessError):
    """Raised when a move is to be demoted that is the last of its variations (422)."""

    error_code = "VARIATION_LAST"

    def __init__(self, path: str) -> None:
        super().__init__(f"{quoted(path)} has no variation below it")


class AnnotationInvalid(ChessError):
    """Raised when an annotation is too long or holds what PGN cannot say (422)."""

    error_code = "ANNOTATION_INVALID"


class PositionInvalid(ChessError):
    """Raised when the headers name no position that chess can be played from (422)."""

    error_code = "POSITION_INVALID"


class ClipPathMissing(ChessError):
    """Raised when a clip is asked for without the move it begins at (422)."""

    error_code = "CLIP_PATH_MISSING"

    def __init__(self) -> None:
        super().__init__("a clip begins at a move; send its move_path")


def require_chess() -> None:
    """Make sure that :mod:`backend.workspace.chess` can be imported.

    Raises:
        ChessNotInstalled: the package ``chess`` is not there.
    """
    if find_spec("chess") is None:
        raise ChessNotInstalled


def quoted(text: str) -> str:
    """*text* in quotation marks, cut to a length that suits a message."""
    cut = text if len(text) <= _QUOTED_CHARS_MAX else f"{text[:_QUOTED_CHARS_MAX]}…"
    return f'"{cut}"'
