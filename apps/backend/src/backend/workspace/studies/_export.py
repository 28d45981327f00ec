"""Export of a study as PGN; needs the package ``chess``."""

import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import quote

from shared_types.workspace import WorkspaceChapter
from shared_types.workspace_study_api import ExportMode

from backend.workspace.chess import ChapterContent, MoveTree, write_file, write_game

__all__ = ("chapter_content", "content_disposition", "export_pgn")

_NAME_CHARS_MAX: Final = 100
#: Characters that file systems refuse, or read as parts of a path.
_UNSAFE: Final = re.compile(r'[\x00-\x1f\x7f-\x9f/\\:*?"<>|\u202a-\u202e\u2066-\u2069]+')
_NOT_PLAIN: Final = re.compile(r"[^A-Za-z0-9 ._()-]+")


def chapter_content(chapter: WorkspaceChapter) -> ChapterContent:
    """Convert a row of ``workspace_chapters`` to the object that :func:`write_file` writes."""
    return ChapterContent(
        chapter_id=chapter.id,
        title=chapter.title,
        headers=chapter.headers,
        tree=MoveTree.from_document(chapter.moves),
    )


def export_pgn(chapters: Sequence[WorkspaceChapter], mode: ExportMode, path: str | None) -> bytes:
    """Return *chapters* as one PGN file in UTF-8.

    Args:
        chapters: The chapters to export; for a clip, exactly one.
        mode: The parts of the chapters to export.
        path: The path of the first move of a clip; None for other modes.

    Raises:
        ClipPathMissing, MoveNotFound: The mode is clip, and *path* is missing or not that of a move.
    """
    if mode is not ExportMode.CLIP:
        return write_file(map(chapter_content, chapters), mode=mode).encode()
    [chapter] = map(chapter_content, chapters)
    return write_game(chapter.headers, chapter.tree, mode=mode, path=path).encode()


def content_disposition(name: str) -> str:
    """Return the header ``Content-Disposition`` for a PGN file (RFC 6266).

    Characters that file systems refuse are replaced. The header has the name twice: in UTF-8, and, for
    programs that read only ASCII, with ``_`` for other characters.
    """
    name = " ".join(_UNSAFE.sub(" ", name).split())[:_NAME_CHARS_MAX].strip(" .") or "study"
    plain = _NOT_PLAIN.sub("_", name).strip(" .") or "study"
    return f"attachment; filename=\"{plain}.pgn\"; filename*=UTF-8''{quote(f'{name}.pgn', safe='')}"
