"""Studies: the nodes that have chapters."""

from uuid import UUID

from pydantic_core import from_json
from relaybox.db import Executor
from shared_types.workspace import NodeKind
from shared_types.workspace_api import CreateNode, UpdateNode
from shared_types.workspace_study_api import ChapterEntry, CreateStudy, UpdateStudy

from backend.workspace.core import CommandTransaction, IfMatch
from backend.workspace.nodes import create_node, update_node
from backend.workspace.studies._chapters import CHAPTERS_SQL

__all__ = ("create_study", "fetch_chapter_entries", "update_study")


async def create_study(tx: CommandTransaction, request: CreateStudy) -> UUID:
    """Make a study, still without chapters; its id.

    Raises:
        NodeNotFound, RoleMissing, TreeRefused, TitleTaken: see :func:`backend.workspace.nodes.create_node`.
    """
    return await create_node(tx, CreateNode(kind=NodeKind.STUDY, **dict(request)))


async def update_study(tx: CommandTransaction, study_id: UUID, request: UpdateStudy, match: IfMatch) -> None:
    """Give a study another title or description.

    Raises:
        NodeNotFound, RoleMissing, VersionStale, TitleTaken: see :func:`backend.workspace.nodes.update_node`.
    """
    await update_node(tx, study_id, UpdateNode(**request.model_dump(exclude_unset=True)), match)


async def fetch_chapter_entries(executor: Executor, study_id: UUID) -> list[ChapterEntry]:
    """The chapters of a study, in their order, without their moves."""
    rows = await executor.fetch(CHAPTERS_SQL["chapter_entries"], study_id)
    return [ChapterEntry.model_validate({**row, "headers": from_json(row["headers"])}) for row in rows]
