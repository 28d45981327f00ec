"""Archives: the studies of a folder as a zip of PGN files; needs the package ``chess``."""

import re
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from typing import Final
from unicodedata import normalize
from uuid import UUID
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from pydantic import TypeAdapter
from shared_types.workspace import NodeKind, WorkspaceChapter
from shared_types.workspace_api import TreeNode

from backend.workspace.chess import ChapterContent, MoveTree, write_file
from backend.workspace.errors import ArchiveTooLarge

__all__ = ("Archive", "ArchivePlan", "ArchivedStudy", "plan_archive")

#: Of one step of a path, so that paths of some levels fit everywhere.
_NAME_CHARS_MAX: Final = 80
#: What some system or other forbids in a name, and what would lead elsewhere.
_UNSAFE: Final = re.compile(r'[\x00-\x1f\x7f-\x9f<>:"/\\|?*\u202a-\u202e\u2066-\u2069]+')
#: Devices of Windows, with any ending.
_DEVICE: Final = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")
_ZIP_EPOCH: Final = datetime(1980, 1, 1, tzinfo=UTC)
_TREE: Final = TypeAdapter(list[TreeNode])


@dataclass(frozen=True, kw_only=True, slots=True)
class ArchivedStudy:
    """A study and its place in the archive."""

    study_id: UUID
    path: str
    changed_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class ArchivePlan:
    """The studies of an archive, and every node whose title stands in one of their paths, themselves too."""

    studies: Sequence[ArchivedStudy]
    named: Set[UUID]


def plan_archive(tree: str) -> ArchivePlan:
    """Where each study of a tree goes, by its folders; no two names of a folder are equal, in any case.

    *tree* is the JSON that the query ``tree`` answers: parents before their children.
    """
    nodes = _TREE.validate_json(tree)
    studies = _placed(nodes)
    named = {one.study_id for one in studies}
    for node in reversed(nodes):
        if node.id in named and node.parent_id and node.depth:
            named.add(node.parent_id)
    return ArchivePlan(studies=studies, named=named)


def _placed(nodes: Iterable[TreeNode]) -> list[ArchivedStudy]:
    paths: dict[UUID, str] = {}
    taken: dict[str, int] = {}
    studies: list[ArchivedStudy] = []
    for node in nodes:
        above = paths.get(node.parent_id, "") if node.parent_id and node.depth else ""
        ending = ".pgn" if node.kind is NodeKind.STUDY else ""
        path = _free(above, safe_name(node.title), ending, taken)
        if node.kind is NodeKind.STUDY:
            studies.append(ArchivedStudy(study_id=node.id, path=path, changed_at=node.changed_at))
        else:
            paths[node.id] = f"{path}/"
    return studies


def safe_name(title: str) -> str:
    """*title* as a name that every system takes; in NFC, as to some both ways to write é are one name."""
    name = " ".join(_UNSAFE.sub(" ", normalize("NFC", title)).split())[:_NAME_CHARS_MAX].strip(" .")
    if not name:
        return "untitled"
    return f"_{name}" if _DEVICE.fullmatch(name) else name


def _free(above: str, name: str, ending: str, taken: dict[str, int]) -> str:
    """A path that is not *taken*, which keeps how often each was wanted: the search goes on from there."""
    wanted = f"{above}{name}{ending}"
    path, number = wanted, taken.get(wanted.casefold(), 0)
    while path.casefold() in taken:
        number += 1
        path = f"{above}{name} ({number}){ending}"
    taken[wanted.casefold()] = max(number, 1)
    taken.setdefault(path.casefold(), 1)
    return path


class Archive:
    """A zip that grows study by study; to be used by one thread at a time."""

    def __init__(self, *, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._buffer = BytesIO()
        self._zip = ZipFile(self._buffer, "w", ZIP_DEFLATED)

    def add(self, study: ArchivedStudy, chapters: Sequence[str]) -> None:
        """Write a study's *chapters*, JSON of their rows, in their order.

        Raises:
            ArchiveTooLarge: it is, by now.
        """
        changed_at = max(study.changed_at.astimezone(UTC), _ZIP_EPOCH)
        entry = ZipInfo(study.path, changed_at.timetuple()[:6])
        entry.compress_type = ZIP_DEFLATED
        self._zip.writestr(entry, write_file(_contents(chapters)))
        self._check()

    def close(self) -> bytes:
        """The finished file.

        Raises:
            ArchiveTooLarge: it is.
        """
        self._zip.close()
        self._check()
        return self._buffer.getvalue()

    def _check(self) -> None:
        if self._buffer.tell() > self._bytes_max:
            raise ArchiveTooLarge(self._bytes_max)


def _contents(rows: Iterable[str]) -> Iterable[ChapterContent]:
    for row in rows:
        chapter = WorkspaceChapter.model_validate_json(row)
        yield ChapterContent(
            chapter_id=chapter.id,
            title=chapter.title,
            headers=chapter.headers,
            tree=MoveTree.from_document(chapter.moves),
        )
