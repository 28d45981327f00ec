"""Compute the differences between two states of a study, such as two versions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from backend.workspace.chess._chapter import ChapterContent
from backend.workspace.chess._tree import START, MoveTree

__all__ = ("PATHS_MAX", "ChapterDiff", "ChapterRef", "ChapterRenamed", "LineRef", "StudyDiff", "diff")

PATHS_MAX: Final = 500
"""Maximum number of entries in each list of a ChapterDiff; the fields ``…_count`` have the full numbers."""
PATHS_CHARS_MAX: Final = 2_000_000
"""Maximum number of characters of all paths in one StudyDiff; a line of 10,000 moves has paths of 50,000."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChapterRef:
    """A chapter that only one of the two states has."""

    chapter_id: UUID
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChapterRenamed:
    """A chapter whose title differs between the two states."""

    chapter_id: UUID
    before: str
    after: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LineRef:
    """A move with its subtree that only one of the two states has."""

    path: str
    #: The number of moves in the subtree, including the move.
    moves: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChapterDiff:
    """The changes of a chapter that both states have.

    Each list contains the first `PATHS_MAX` entries, or fewer if the paths of the whole StudyDiff reach
    `PATHS_CHARS_MAX` characters. The counts include entries that are not listed.
    """

    chapter_id: UUID
    #: Names of added, removed and changed headers, in ascending order.
    headers: tuple[str, ...]
    #: Added moves, each with its subtree, in preorder.
    moves_added: tuple[LineRef, ...]
    moves_added_count: int
    #: Removed moves, each with its subtree, in preorder.
    moves_removed: tuple[LineRef, ...]
    moves_removed_count: int
    #: Paths of moves whose annotations changed; the empty path is the starting position.
    annotated: tuple[str, ...]
    annotated_count: int
    #: Paths of moves after which the order of variations changed; the empty path is the starting position.
    reordered: tuple[str, ...]
    reordered_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyDiff:
    """The changes of a study; chapters are compared by their ids."""

    added: tuple[ChapterRef, ...]
    removed: tuple[ChapterRef, ...]
    renamed: tuple[ChapterRenamed, ...]
    #: Whether the chapters that are in both states have another order afterwards.
    reordered: bool
    #: Chapters whose headers or moves changed, in their order after the change.
    changed: tuple[ChapterDiff, ...]


def diff(before: Sequence[ChapterContent], after: Sequence[ChapterContent]) -> StudyDiff:
    """Return the changes from *before* to *after*."""
    old = {one.chapter_id: one for one in before}
    new = {one.chapter_id: one for one in after}
    common = [(old[one.chapter_id], one) for one in after if one.chapter_id in old]
    listing = _Listing()
    return StudyDiff(
        added=tuple(_ref(one) for one in after if one.chapter_id not in old),
        removed=tuple(_ref(one) for one in before if one.chapter_id not in new),
        renamed=tuple(
            ChapterRenamed(chapter_id=now.chapter_id, before=was.title, after=now.title)
            for was, now in common
            if was.title != now.title
        ),
        reordered=[one.chapter_id for one in before if one.chapter_id in new]
        != [now.chapter_id for _, now in common],
        changed=tuple(
            _chapter(was, now, listing)
            for was, now in common
            if (was.headers, was.tree) != (now.headers, now.tree)
        ),
    )


def _ref(chapter: ChapterContent) -> ChapterRef:
    return ChapterRef(chapter_id=chapter.chapter_id, title=chapter.title)


def _chapter(was: ChapterContent, now: ChapterContent, listing: "_Listing") -> ChapterDiff:
    names = was.headers.keys() | now.headers.keys()
    found = _Comparison(was.tree, now.tree)
    return ChapterDiff(
        chapter_id=now.chapter_id,
        headers=tuple(sorted(name for name in names if was.headers.get(name) != now.headers.get(name))),
        moves_added=listing.lines(now.tree, found.added),
        moves_added_count=len(found.added),
        moves_removed=listing.lines(was.tree, found.removed),
        moves_removed_count=len(found.removed),
        annotated=listing.paths(now.tree, found.annotated),
        annotated_count=len(found.annotated),
        reordered=listing.paths(now.tree, found.reordered),
        reordered_count=len(found.reordered),
    )


class _Comparison:
    """Compares two trees: follows the moves that both trees have, and collects the differences beside them.

    added, annotated: indexes in the new tree; of an added subtree only the first move.
    removed: indexes in the old tree; of a removed subtree only the first move.
    reordered: indexes in the new tree of moves whose variations have another order.
    All lists are in preorder; `START` stands for the starting position.
    """

    def __init__(self, was: MoveTree, now: MoveTree) -> None:
        self.added: list[int] = []
        self.removed: list[int] = []
        self.annotated: list[int] = []
        self.reordered: list[int] = []
        self._was, self._now = was, now
        if was.start != now.start:
            self.annotated.append(START)
        were, are = was.children(), now.children()
        waiting = [(START, START)]
        while waiting:
            old, new = waiting.pop()
            waiting += self._compare_children(new, were[old], are[new])
        for found in (self.added, self.removed, self.annotated, self.reordered):
            found.sort()

    def _compare_children(self, parent: int, were: list[int], are: list[int]) -> list[tuple[int, int]]:
        """Compare the children of a move that both trees have; return the pairs of equal children."""
        old = {self._was.moves[one].uci: one for one in were}
        new = {self._now.moves[one].uci: one for one in are}
        self.removed += (index for uci, index in old.items() if uci not in new)
        self.added += (index for uci, index in new.items() if uci not in old)
        common = [(old[uci], index) for uci, index in new.items() if uci in old]
        if common != sorted(common):
            self.reordered.append(parent)
        self.annotated += (
            now for was, now in common if self._was.moves[was].annotation != self._now.moves[now].annotation
        )
        return common


class _Listing:
    """Lists the paths of moves, until all paths together reach `PATHS_CHARS_MAX` characters."""

    def __init__(self) -> None:
        self._chars_left = PATHS_CHARS_MAX

    def lines(self, tree: MoveTree, indexes: Sequence[int]) -> tuple[LineRef, ...]:
        listed = zip(indexes, self.paths(tree, indexes), strict=False)
        return tuple(LineRef(path=path, moves=tree.end_of(one) - one) for one, path in listed)

    def paths(self, tree: MoveTree, indexes: Sequence[int]) -> tuple[str, ...]:
        paths: list[str] = []
        for index in indexes[:PATHS_MAX]:
            path = tree.path_of(index)
            if len(path) > self._chars_left:
                break
            self._chars_left -= len(path)
            paths.append(path)
        return tuple(paths)
