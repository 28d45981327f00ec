"""Zip archives of the studies below a node, as PGN files; needs the package ``chess``."""

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

#: Maximum number of characters of one name, so that paths of several levels fit into the limits of file
#: systems.
_NAME_CHARS_MAX: Final = 80
#: Characters that file systems forbid in a name, and path separators.
_UNSAFE: Final = re.compile(r'[\x00-\x1f\x7f-\x9f<>:"/\\|?*\u202a-\u202e\u2066-\u2069]+')
#: Device names of Windows, with any extension.
_DEVICE: Final = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")
_ZIP_EPOCH: Final = datetime(1980, 1, 1, tzinfo=UTC)
_TREE: Final = TypeAdapter(list[TreeNode])


@dataclass(frozen=True, kw_only=True, slots=True)
class ArchivedStudy:
    """A study and its path in the archive."""

    study_id: UUID
    path: str
    changed_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class ArchivePlan:
    """The studies of an archive, and the nodes whose titles the archive reveals.

    studies: the studies with their paths.
    named: ids of these studies, and of the folders above them; their titles occur in the paths.
    """

    studies: Sequence[ArchivedStudy]
    named: Set[UUID]


def plan_archive(tree: str) -> ArchivePlan:
    """Choose a path in the archive for each study of a tree.

    Names in one folder of the archive differ even if case is ignored, as some file systems do. *tree* is the
    result of the query ``tree`` of nodes.sql: JSON, with parents before their children.
    """
    nodes = _TREE.validate_json(tree)
    studies = _assign_paths(nodes)
    named = {one.study_id for one in studies}
    for node in reversed(nodes):
        if node.id in named and node.parent_id and node.depth:
            named.add(node.parent_id)
    return ArchivePlan(studies=studies, named=named)


def _assign_paths(nodes: Iterable[TreeNode]) -> list[ArchivedStudy]:
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
    """Return *title* as a file name that all operating systems accept, in Unicode normalisation form C."""
    name = " ".join(_UNSAFE.sub(" ", normalize("NFC", title)).split())[:_NAME_CHARS_MAX].strip(" .")
    if not name:
        return "untitled"
    return f"_{name}" if _DEVICE.fullmatch(name) else name


def _free(above: str, name: str, ending: str, taken: dict[str, int]) -> str:
    """Return a path below *above* that is not *taken*: with a number after *name* if necessary.

    *taken* maps a path to the number of times that it was requested, from which the search continues.
    """
    base_path = f"{above}{name}{ending}"
    path, number = base_path, taken.get(base_path.casefold(), 0)
    while path.casefold() in taken:
        number += 1
        path = f"{above}{name} ({number}){ending}"
    taken[base_path.casefold()] = max(number, 1)
    taken.setdefault(path.casefold(), 1)
    return path


class Archive:
    """A zip file that is written study by study; not thread-safe."""

    def __init__(self, *, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._buffer = BytesIO()
        self._zip = ZipFile(self._buffer, "w", ZIP_DEFLATED)

    def add(self, study: ArchivedStudy, chapters: Sequence[str]) -> None:
        """Write a study; *chapters* are its rows of ``workspace_chapters`` as JSON text.

        Raises:
            ArchiveTooLarge: The file now has more bytes than the maximum given at construction.
        """
        changed_at = max(study.changed_at.astimezone(UTC), _ZIP_EPOCH)
        entry = ZipInfo(study.path, changed_at.timetuple()[:6])
        entry.compress_type = ZIP_DEFLATED
        self._zip.writestr(entry, write_file(_contents(chapters)))
        self._check()

    def close(self) -> bytes:
        """Finish and return the file.

        Raises:
            ArchiveTooLarge: The file has more bytes than the maximum given at construction.
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
