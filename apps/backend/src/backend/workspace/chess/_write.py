"""Writing PGN in its export format (PGN standard, 3.2 and 8), and what may be left out of it."""

import re
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum, auto
from typing import Final, assert_never

import chess
from shared_types.workspace_study_api import ExportMode

from backend.workspace.chess._chapter import ChapterContent
from backend.workspace.chess._comments import comment_of, escaped, folded
from backend.workspace.chess._headers import HEADERS_MAX, RESULTS, ROSTER, start_board, title_of
from backend.workspace.chess._render import positions
from backend.workspace.chess._tags import written_tag
from backend.workspace.chess._tree import START, Annotation, Move, MoveTree
from backend.workspace.errors import ClipPathMissing

__all__ = ("movetext", "write_file", "write_game")

_COLUMNS: Final = 80
#: What a chapter without players or event was called when it was imported; it need not be written.
_NUMBERED: Final = re.compile(r"Game \d+")


def write_game(
    headers: Mapping[str, str], tree: MoveTree, *, mode: ExportMode = ExportMode.FULL, path: str | None = None
) -> str:
    """One game as PGN: the seven tag roster, the other tags by name, the moves on lines of 80 columns.

    A comment is never broken, so that its own line breaks are all it has; a line with one may be longer.
    Reading the whole game (`FULL`) gives the same headers and the same tree. *path* is the move a clip begins
    at.

    Raises:
        ClipPathMissing: a clip without *path*.
        MoveNotFound: no move has the path.
        PositionInvalid: the headers name no position.
    """
    match mode:
        case ExportMode.FULL:
            pass
        case ExportMode.CLIP:
            headers, tree = _clipped(headers, tree, path)
        case ExportMode.NO_COMMENT:
            tree = MoveTree(tuple(Move(one.parent, one.uci) for one in tree.moves))
        case ExportMode.MAINLINE:
            tree = _main_line(tree)
        case _:
            assert_never(mode)
    tags = [written_tag(name, value) for name, value in _in_order(headers)]
    return "\n".join([*tags, "", *_wrapped([*movetext(tree, start_board(headers)), _result(headers)]), ""])


def write_file(chapters: Iterable[ChapterContent], *, mode: ExportMode = ExportMode.FULL) -> str:
    """All *chapters* as one PGN file, an empty line between them.

    A title that the headers do not give is written as the tag ``ChapterName``.

    Raises:
        ClipPathMissing: a clip is of one chapter; see :func:`write_game`.
        PositionInvalid: the headers of a chapter name no position.
    """
    return "\n".join(write_game(_titled(one), one.tree, mode=mode) for one in chapters)


def _titled(chapter: ChapterContent) -> Mapping[str, str]:
    headers = chapter.headers
    derived = title_of(headers)
    told = chapter.title == derived or (derived is None and _NUMBERED.fullmatch(chapter.title))
    if told or len(headers) >= HEADERS_MAX:
        return headers
    return {**headers, "ChapterName": chapter.title}


def _in_order(headers: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name, unknown in ROSTER.items():
        yield name, headers.get(name, unknown)
    yield from sorted((name, value) for name, value in headers.items() if name not in ROSTER)


def _clipped(
    headers: Mapping[str, str], tree: MoveTree, path: str | None
) -> tuple[Mapping[str, str], MoveTree]:
    if not path:
        raise ClipPathMissing
    index = tree.find(path)
    parent, end = tree.moves[index].parent, tree.end_of(index)
    # The moves of the clip stand together; all but the first have their parents among them.
    first = Move(START, tree.moves[index].uci, folded(tree.moves[index].annotation))
    rest = (Move(one.parent - index, one.uci, one.annotation) for one in tree.moves[index + 1 : end])
    clip = MoveTree((first, *rest))
    if parent == START:
        return headers, clip
    board = start_board(headers)
    for uci in tree.line_to(parent):
        board.push_uci(uci)
    # Castling rights by which a Chess960 position was known may be gone by then.
    variant = {"Variant": "Chess960"} if board.chess960 else {}
    return {**headers, **variant, "FEN": board.fen(), "SetUp": "1"}, clip


def _main_line(tree: MoveTree) -> MoveTree:
    moves: list[Move] = []
    for index, one in enumerate(tree.moves):
        # The main line is what preorder begins with.
        if one.parent != index - 1:
            break
        moves.append(one)
    return MoveTree(tuple(moves), tree.start)


def movetext(tree: MoveTree, board: chess.Board) -> list[str]:
    """Return the tokens that the moves are written with, without a result; a line may end behind each.

    *board* is the position before the first move; it is changed.
    """
    tokens = _Tokens()
    tokens.comment(comment_of(tree.start))
    numbered = list(_numbered(tree, board))
    children = tree.children()
    # What is still to be written, the next on top: a move, what follows one, or the end of a variation. By
    # hand, since variations may be nested as deep as a tree has moves.
    waiting: list[tuple[_Step, int]] = [(_Step.AFTER, START)]
    while waiting:
        step, index = waiting.pop()
        match step:
            case _Step.CLOSE:
                tokens.close()
            case _Step.MOVE:
                tokens.move(*numbered[index], tree.moves[index].annotation)
            case _Step.VARIATION:
                tokens.open()
                waiting += (_Step.CLOSE, index), (_Step.AFTER, index), (_Step.MOVE, index)
            case _Step.AFTER:
                for main in children[index][:1]:
                    waiting.append((_Step.AFTER, main))
                    waiting += ((_Step.VARIATION, other) for other in children[index][:0:-1])
                    waiting.append((_Step.MOVE, main))
            case _:
                assert_never(step)
    return tokens.made


def _result(headers: Mapping[str, str]) -> str:
    result = headers.get("Result", "*")
    return result if result in RESULTS else "*"


def _numbered(tree: MoveTree, board: chess.Board) -> Iterator[tuple[str, str]]:
    """For each move its number (``12.`` or ``12...``) and its SAN."""
    for before, move in positions(tree, board):
        number = f"{before.fullmove_number}{'.' if before.turn else '...'}"
        yield number, before.san_and_push(move)


class _Step(Enum):
    MOVE = auto()
    VARIATION = auto()
    AFTER = auto()
    CLOSE = auto()


class _Tokens:
    """The tokens of a game; parentheses cling to what they enclose."""

    def __init__(self) -> None:
        self.made: list[str] = []
        self._opening = ""
        # Black's moves are numbered where something stands between them and White's.
        self._number = True

    def move(self, number: str, san: str, said: Annotation) -> None:
        self.comment(escaped(said.before))
        if self._number or not number.endswith("..."):
            self._add(number)
        self._add(san)
        self._number = False
        for nag in said.nags:
            self._add(f"${nag}")
        self.comment(comment_of(said))

    def comment(self, text: str) -> None:
        if text:
            self._add(f"{{ {text} }}")
            self._number = True

    def open(self) -> None:
        self._opening, self._number = "(", True

    def close(self) -> None:
        self.made[-1] += ")"
        self._number = True

    def _add(self, token: str) -> None:
        self.made.append(self._opening + token)
        self._opening = ""


def _wrapped(tokens: Iterable[str]) -> Iterator[str]:
    """Lines of at most `_COLUMNS`, where no token is longer by itself."""
    line: list[str] = []
    width = 0
    for token in tokens:
        first, _, _ = token.partition("\n")
        if line and width + 1 + len(first) > _COLUMNS:
            yield " ".join(line)
            line, width = [], 0
        line.append(token)
        width = len(token) - token.rfind("\n") - 1 if "\n" in token else width + bool(width) + len(token)
    yield " ".join(line)
