"""Commands on versions of a study: snapshot and rollback. Each creates a version; no version is deleted."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from relaybox.db import Executor, load_queries
from shared_types.events import EventTarget
from shared_types.workspace import (
    Role,
    WorkspaceChapter,
    WorkspaceEvent,
    WorkspaceNode,
    WorkspaceVersion,
)
from shared_types.workspace_version_api import CreateVersion, RollBack, VersionView

from backend.workspace.core import CommandTransaction, IfMatch, lock_node
from backend.workspace.errors import NodeNotFound, ResourceNotFound, VersionsFull, VersionTooLarge
from backend.workspace.nodes import NODES_SQL
from backend.workspace.projection import version_chapters
from backend.workspace.studies._chapters import fetch_chapters

__all__ = ("VERSIONS_SQL", "StudyContent", "create_version", "fetch_content", "roll_back")

VERSIONS_SQL: Final = load_queries(__package__ or "backend.workspace.studies", "versions.sql")
#: Maximum number of versions of one study, including those that rollbacks create.
_VERSIONS_MAX: Final = 200
#: Maximum size of a version's chapters as JSON text, in bytes. Writing 32 MiB takes 3 s. 64 chapters of the
#: maximum size would be 128 MiB, and eight times as much as Python objects; PostgreSQL stores no JSONB above
#: 256 MB.
_VERSION_BYTES_MAX: Final = 32 * 1024 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyContent:
    """The content of a version, or of the current study."""

    #: The number of the version; None for the current study.
    number: int | None
    title: str
    description: str
    #: The chapters in their order, each as JSON with id, position, title, headers and moves.
    chapters: Sequence[dict[str, Any]]


async def fetch_content(executor: Executor, study_id: UUID, number: int | None) -> StudyContent:
    """Return the content of the version *number*; None: of the current study.

    Raises:
        ResourceNotFound: The version does not exist.
        NodeNotFound: The study does not exist.
    """
    if number is not None:
        version = await _fetch_version(executor, study_id, number)
        return StudyContent(
            number=number, title=version.title, description=version.description, chapters=version.chapters
        )
    rows = await executor.fetch(NODES_SQL["node"], study_id)
    if not rows:
        raise NodeNotFound
    node = WorkspaceNode.model_validate_json(rows[0]["row"])
    chapters = version_chapters(await fetch_chapters(executor, study_id))
    return StudyContent(number=None, title=node.title, description=node.description, chapters=chapters)


async def create_version(tx: CommandTransaction, study_id: UUID, request: CreateVersion) -> VersionView:
    """Create a version of the current study.

    Raises:
        NodeNotFound: The study does not exist, or the sender may not read it.
        RoleMissing: The sender is not an editor of the study.
        VersionsFull, VersionTooLarge: The study has the maximum number of versions, or is too large.
    """
    await lock_node(tx, study_id, Role.EDITOR)
    number = await _last_number(tx, study_id) + 1
    _require_room(number)
    await _lock_chapters(tx, study_id)
    await _emit(tx, WorkspaceEvent.STUDY_SNAPSHOT_CREATED, study_id, number=number, label=request.label)
    await tx.record("TakeVersion", study_id, request.model_dump())
    return _view(tx.state(study_id).versions[number])


async def roll_back(tx: CommandTransaction, study_id: UUID, request: RollBack, match: IfMatch) -> VersionView:
    """Restore chapters and description of a version, and create a version of the result; keep the title.

    If the study has changed since its latest version, a version of its current state is created first. So a
    second rollback can undo the first.

    Raises:
        NodeNotFound: The study does not exist, or the sender may not read it.
        RoleMissing: The sender is not an editor of the study.
        VersionStale: The study does not have the version that *match* requires.
        ResourceNotFound: The version to restore does not exist.
        VersionsFull, VersionTooLarge: The study has the maximum number of versions, or is too large.
    """
    await lock_node(tx, study_id, Role.EDITOR)
    match.check(tx.node(study_id).version)
    target = await _fetch_version(tx.executor, study_id, request.version)
    last = await _last_number(tx, study_id)
    latest = target if last == target.number else await _fetch_version(tx.executor, study_id, last)
    chapters = await _lock_chapters(tx, study_id)
    tx.load_rows(study_id, "versions", {target.number: target})
    number = last + 1
    if _content_of_version(latest) != (tx.node(study_id).description, version_chapters(chapters)):
        label = f"before going back to version {target.number}"
        await _emit(tx, WorkspaceEvent.STUDY_SNAPSHOT_CREATED, study_id, number=number, label=label)
        number += 1
    _require_room(number)
    await _emit(tx, WorkspaceEvent.STUDY_ROLLED_BACK, study_id, number=number, restored_from=target.number)
    await tx.record("RollBack", study_id, request.model_dump())
    return _view(tx.state(study_id).versions[number])


async def _fetch_version(executor: Executor, study_id: UUID, number: int) -> WorkspaceVersion:
    rows = await executor.fetch(VERSIONS_SQL["version"], study_id, number)
    if not rows:
        raise ResourceNotFound("version")
    return WorkspaceVersion.model_validate_json(rows[0]["row"])


def _require_room(number: int) -> None:
    """Require that *number* is at most the maximum number of versions; numbers are consecutive from 1.

    Raises:
        VersionsFull: *number* is larger.
    """
    if number > _VERSIONS_MAX:
        raise VersionsFull(_VERSIONS_MAX)


async def _lock_chapters(tx: CommandTransaction, study_id: UUID) -> Sequence[WorkspaceChapter]:
    [size] = await tx.executor.fetch(VERSIONS_SQL["study_bytes"], study_id)
    if size["bytes"] > _VERSION_BYTES_MAX:
        raise VersionTooLarge(_VERSION_BYTES_MAX)
    chapters = await fetch_chapters(tx.executor, study_id)
    tx.load_rows(study_id, "chapters", {one.id: one for one in chapters})
    return chapters


async def _last_number(tx: CommandTransaction, study_id: UUID) -> int:
    [row] = await tx.executor.fetch(VERSIONS_SQL["last_number"], study_id)
    return row["number"]


async def _emit(tx: CommandTransaction, event: WorkspaceEvent, study_id: UUID, **payload: object) -> None:
    await tx.emit(event, study_id, payload, target=(EventTarget.STUDY, study_id))


def _content_of_version(version: WorkspaceVersion) -> tuple[str, list[dict[str, Any]]]:
    return version.description, version.chapters


def _view(version: WorkspaceVersion) -> VersionView:
    fields = version.model_dump(include=set(VersionView.model_fields))
    return VersionView(**fields, chapters_count=len(version.chapters))
