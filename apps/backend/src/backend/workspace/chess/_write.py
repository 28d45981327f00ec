"""Write games as PGN in export format (PGN standard, 3.2 and 8), whole or in part."""

import re
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum, auto
from typing import Final, assert_never

import chess
from shared_types.workspace_study_api import ExportMode

from backend.workspace.chess._chapter import ChapterContent
from backend.workspace.chess._comments import escape_comment, format_comment, move_before_into_text
from backend.workspace.chess._headers import HEADERS_MAX, RESULTS, ROSTER, game_title, start_board
from backend.workspace.chess._render import positions
from backend.workspace.chess._tags import format_tag
from backend.workspace.chess._tree import START, Annotation, Move, MoveTree
from backend.workspace.errors import ClipPathMissing

__all__ = ("movetext", "write_file", "write_game")

_COLUMNS: Final = 80
#: The title that an import gives a chapter if the game has neither players nor event. Such a title is not
#: written as the tag ChapterName.
_NUMBERED: Final = re.compile(r"Game \d+")


def write_game(
    headers: Mapping[str, str], tree: MoveTree, *, mode: ExportMode = ExportMode.FULL, path: str | None = None
) -> str:
    """Return one game as PGN: the seven tag roster, the other tags by name, the moves on lines of 80 columns.

    A comment is never broken, so a line with a comment may be longer. Parsing the text of the mode `FULL`
    gives the same headers and the same tree.

    Args:
        headers: The tag pairs of the chapter, with the starting position.
        tree: The moves of the chapter.
        mode: The whole game; the game without annotations; its main line; or a clip, which is one move with
            its subtree as a game of its own.
        path: The path of the first move of a clip; None for other modes.

    Raises:
        ClipPathMissing: A clip is requested without *path*.
        MoveNotFound: No move has the path.
        PositionInvalid: The headers contain no legal position.
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
    tags = [format_tag(name, value) for name, value in _in_order(headers)]
    return "\n".join([*tags, "", *_wrapped([*movetext(tree, start_board(headers)), _result(headers)]), ""])


def write_file(chapters: Iterable[ChapterContent], *, mode: ExportMode = ExportMode.FULL) -> str:
    """Return *chapters* as one PGN file, separated by empty lines.

    A title that :func:`game_title` does not derive from the other headers is written as the tag
    ``ChapterName``.

    Raises:
        ClipPathMissing: See :func:`write_game`; a clip is part of one chapter.
        PositionInvalid: The headers of a chapter contain no legal position.
    """
    return "\n".join(write_game(_titled(one), one.tree, mode=mode) for one in chapters)


def _titled(chapter: ChapterContent) -> Mapping[str, str]:
    headers = chapter.headers
    derived = game_title(headers)
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
    # The moves of the clip are adjacent, and each parent, except that of the first, is one of them.
    first = Move(START, tree.moves[index].uci, move_before_into_text(tree.moves[index].annotation))
    rest = (Move(one.parent - index, one.uci, one.annotation) for one in tree.moves[index + 1 : end])
    clip = MoveTree((first, *rest))
    if parent == START:
        return headers, clip
    board = start_board(headers)
    for uci in tree.line_to(parent):
        board.push_uci(uci)
    # Write the variant: at this move the castling rights that imply Chess960 may be lost.
    variant = {"Variant": "Chess960"} if board.chess960 else {}
    return {**headers, **variant, "FEN": board.fen(), "SetUp": "1"}, clip


def _main_line(tree: MoveTree) -> MoveTree:
    moves: list[Move] = []
    for index, one in enumerate(tree.moves):
        # In preorder, the main line comes first.
        if one.parent != index - 1:
            break
        moves.append(one)
    return MoveTree(tuple(moves), tree.start)


def movetext(tree: MoveTree, board: chess.Board) -> list[str]:
    """Return the tokens of the moves, without the result; a line break is allowed after each token.

    *board* must have the starting position; the function makes moves on this object.
    """
    tokens = _Tokens()
    tokens.comment(format_comment(tree.start))
    numbered = list(_numbered(tree, board))
    children = tree.children()
    # A stack of pending steps: a move, its children, or the end of a variation. Not recursion, because
    # variations may be nested as deep as the tree has moves.
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
    """Yield the number (``12.`` or ``12...``) and the SAN of each move."""
    for before, move in positions(tree, board):
        number = f"{before.fullmove_number}{'.' if before.turn else '...'}"
        yield number, before.san_and_push(move)


class _Step(Enum):
    MOVE = auto()
    VARIATION = auto()
    AFTER = auto()
    CLOSE = auto()


class _Tokens:
    """Collects the tokens of a game; a parenthesis is a part of the first or last token that it encloses."""

    def __init__(self) -> None:
        self.made: list[str] = []
        self._opening = ""
        # Whether the next move of Black needs a number, because a comment or variation precedes it.
        self._number = True

    def move(self, number: str, san: str, annotation: Annotation) -> None:
        self.comment(escape_comment(annotation.before))
        if self._number or not number.endswith("..."):
            self._add(number)
        self._add(san)
        self._number = False
        for nag in annotation.nags:
            self._add(f"${nag}")
        self.comment(format_comment(annotation))

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
    """Yield lines of at most `_COLUMNS` characters; a longer token is a line of its own."""
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
