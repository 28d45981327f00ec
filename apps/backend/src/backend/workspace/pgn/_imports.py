"""Import commands: create a chapter for each game of a file, in a study or in the studies of a folder."""

from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID, uuid4

from pydantic_core import from_json
from relaybox.db import load_queries
from relaybox_types.envelope import EventEnvelope
from shared_types.events import EventTarget
from shared_types.workspace import NodeKind, Role, WorkspaceEvent
from shared_types.workspace_api import CreateNode
from shared_types.workspace_pgn_api import ImportedStudy, ImportReport

from backend.workspace.access import LEVELS_MAX, Access, Ancestor, access_of
from backend.workspace.core import CommandTransaction, lock_node, lock_parent
from backend.workspace.errors import StudyFull, TreeTooDeep
from backend.workspace.nodes import add_node
from backend.workspace.pgn._parsed_file import (
    CHAPTERS_MAX,
    REPORTED_MAX,
    FileDigest,
    Game,
    ParsedFile,
    Part,
    split_into_studies,
)

__all__ = ("COMMAND", "import_into_study", "import_new")

IMPORTS_SQL: Final = load_queries(__package__ or "backend.workspace.pgn", "imports.sql")
COMMAND: Final = "ImportPgn"
"""The type of the import command; equal for requests and tasks."""
#: Maximum bytes of the moves, as JSON, of events that are not written yet. As Python objects, moves take
#: eight times the memory of their JSON.
_PENDING_BYTES_MAX: Final = 4_000_000
_TITLE_CHARS_MAX: Final = 200


async def import_into_study(
    tx: CommandTransaction, study_id: UUID, file: ParsedFile, digest: FileDigest
) -> ImportReport:
    """Add the games of a file to a study, after its chapters.

    Raises:
        NodeNotFound: The node does not exist, is not a study, or the sender may not read it.
        RoleMissing: The sender is not an editor of the study.
        StudyFull: The study would have more chapters than the maximum.
    """
    access = await lock_node(tx, study_id, Role.EDITOR)
    access.require_kind(NodeKind.STUDY)
    [existing] = await tx.executor.fetch(IMPORTS_SQL["study_size"], study_id)
    if existing["chapters"] + len(file.games) > CHAPTERS_MAX:
        raise StudyFull(CHAPTERS_MAX)
    [part] = split_into_studies(file)
    recorder = _ImportRecorder(tx, study_id, digest.payload())
    await recorder.chapters(study_id, part, first_position=existing["next_position"])
    await recorder.end()
    return _report(file, [ImportedStudy(id=study_id, title=access.node.title, chapters=len(file.games))])


async def import_new(
    tx: CommandTransaction,
    file: ParsedFile,
    digest: FileDigest,
    *,
    root_id: UUID,
    parent_id: UUID | None,
    title: str,
) -> ImportReport:
    """Create the node *root_id*: a study with the games of a file, or, for many games, a folder of studies.

    Args:
        tx: The command's transaction.
        file: The games.
        digest: Size and hash of the file, for the command in the inbox.
        root_id: The id of the new study or folder.
        parent_id: The parent of the new node; None for a root.
        title: The title of the new node.

    Raises:
        NodeNotFound: The parent does not exist, or the sender may not read it.
        RoleMissing: The sender is not an editor of the parent.
        TreeRefused: The node cannot have this parent.
        TitleTaken: Another study below the parent has the title.
    """
    parts = split_into_studies(file)
    payload = {**digest.payload(), "parent_id": None if parent_id is None else str(parent_id)}
    recorder = _ImportRecorder(tx, root_id, payload)
    if len(parts) > 1:
        return _report(file, await _add_folder(recorder, parts, parent_id, title), folder_id=root_id)
    parent = None if parent_id is None else await lock_parent(tx, parent_id, Role.EDITOR)
    request = CreateNode(kind=NodeKind.STUDY, title=title, parent_id=parent_id)
    await add_node(tx, request, parent, node_id=root_id)
    await recorder.chapters(root_id, parts[0])
    await recorder.end()
    return _report(file, [ImportedStudy(id=root_id, title=title, chapters=len(file.games))])


async def _add_folder(
    recorder: "_ImportRecorder", parts: Sequence[Part], parent_id: UUID | None, title: str
) -> list[ImportedStudy]:
    """Write a folder and its studies, and lock the parent only at the end.

    A large import takes long, and other commands below the parent need not wait for it: before the commit no
    transaction sees the new nodes. The parent may be moved or trashed before the lock, so the sender's role
    and the depth of the tree are checked again after the lock.
    """
    tx, folder_id = recorder.tx, recorder.root_id
    parent = None if parent_id is None else await tx.access(parent_id)
    if parent is not None:
        parent.require(Role.EDITOR)
    request = CreateNode(kind=NodeKind.FOLDER, title=title, parent_id=parent_id)
    await add_node(tx, request, parent, node_id=folder_id)
    [created] = tx.events
    inside = _inside(tx, folder_id, title, parent)
    studies: list[ImportedStudy] = []
    for place, part in enumerate(parts):
        range_ = f" {part.first}–{part.last}"
        name = title[: _TITLE_CHARS_MAX - len(range_)].rstrip() + range_
        request = CreateNode(kind=NodeKind.STUDY, title=name, parent_id=folder_id, position=place)
        study_id = await add_node(tx, request, inside, cause=created)
        await recorder.chapters(study_id, part)
        studies.append(ImportedStudy(id=study_id, title=name, chapters=len(part.games)))
    await recorder.end()
    if parent_id is not None:
        locked = await lock_parent(tx, parent_id, Role.EDITOR)
        if len(locked.chain) + 2 > LEVELS_MAX:
            raise TreeTooDeep(LEVELS_MAX)
    return studies


def _inside(tx: CommandTransaction, folder_id: UUID, title: str, parent: Access | None) -> Access:
    """Return the access to a new folder, which inherits the role of its parent."""
    folder = Ancestor(
        id=folder_id,
        kind=NodeKind.FOLDER,
        parent_id=None if parent is None else parent.node.id,
        owner_id=tx.caller.actor if parent is None else parent.owner,
        title=title,
        visibility=None,
        trashed=False,
        trashed_by=None,
        granted=None,
        linked=None,
    )
    return access_of((folder, *(() if parent is None else parent.chain)), tx.caller.actor)


class _ImportRecorder:
    """Emits the events of an import, and writes them to PostgreSQL in parts of about `_PENDING_BYTES_MAX`."""

    def __init__(self, tx: CommandTransaction, root_id: UUID, payload: Mapping[str, Any]) -> None:
        self.tx = tx
        self.root_id = root_id
        self._payload = payload
        self._recorded = False
        self._pending_bytes = 0

    async def chapters(self, study_id: UUID, part: Part, *, first_position: int = 0) -> None:
        """Emit ``study.pgn_imported`` for *part*, and, caused by it, the creation of each chapter."""
        payload = {
            "chapters": len(part.games),
            "games": len(part.games) + len(part.skipped),
            "skipped_count": len(part.skipped),
            "skipped": [one.model_dump() for one in part.skipped[:REPORTED_MAX]],
        }
        target = EventTarget.STUDY, study_id
        imported = await self.tx.emit(WorkspaceEvent.PGN_IMPORTED, study_id, payload, target=target)
        for position, game in enumerate(part.games, first_position):
            await self._chapter(study_id, game, position, imported)

    async def end(self) -> None:
        """Write the events that are not written yet; the first call writes the command too."""
        if self._recorded:
            await self.tx.flush()
        else:
            await self.tx.record(COMMAND, self.root_id, self._payload)
        self._recorded, self._pending_bytes = True, 0

    async def _chapter(self, study_id: UUID, game: Game, position: int, imported: EventEnvelope) -> None:
        if self._pending_bytes and self._pending_bytes + len(game.moves) > _PENDING_BYTES_MAX:
            await self.end()
        self._pending_bytes += len(game.moves)
        chapter_id = uuid4()
        payload = {
            "chapter_id": str(chapter_id),
            "position": position,
            "title": game.title,
            "headers": game.headers,
            "moves": from_json(game.moves),
        }
        target = EventTarget.CHAPTER, chapter_id
        await self.tx.emit(WorkspaceEvent.CHAPTER_CREATED, study_id, payload, target=target, cause=imported)


def _report(file: ParsedFile, studies: list[ImportedStudy], *, folder_id: UUID | None = None) -> ImportReport:
    return ImportReport(
        folder_id=folder_id,
        studies=studies,
        chapters=len(file.games),
        skipped_count=len(file.skipped),
        skipped=list(file.skipped[:REPORTED_MAX]),
        dropped_count=file.dropped.count,
        dropped=list(file.dropped.first),
        normalised_count=file.normalised.count,
        normalised=list(file.normalised.first),
    )
