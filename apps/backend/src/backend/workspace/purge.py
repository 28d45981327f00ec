"""Purging: a batch of the bin leaves PostgreSQL, and every copy of its content with it."""

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from relaybox.db import load_queries
from relaybox.events import erase
from relaybox_types.envelope import EventEnvelope
from relaybox_types.workspace import Visibility, WorkspaceEvent
from relaybox_types.workspace_bin_api import PurgeCounts

from backend.workspace._work import Work
from backend.workspace.access import Access, access_of
from backend.workspace.bin import carried_visibility
from backend.workspace.history import AGGREGATE_TYPE

__all__ = ("PURGE", "count_purge", "purge_batch", "purge_node")

PURGE: Final = load_queries(__package__ or "backend.workspace", "purge.sql")
#: Nodes erased in one statement, so that a batch of any size stays below the time that one may take:
#: 2,000 with 6,000 events take a second at the most; larger pieces spare little.
_ERASED_MAX: Final = 2_000
_ASKED: Final = "purged from the bin"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Batch:
    """What is below the root of a batch, locked."""

    #: The batch itself.
    node_ids: list[UUID]
    #: What was trashed below it before, on its own, with the visibility that holds there: it stays.
    apart: dict[UUID, Visibility]


async def purge_node(work: Work, node_id: UUID) -> PurgeCounts:
    """Purge what was trashed with a node, for good, if its owner asks for it.

    Raises:
        NodeNotFound, RoleMissing: who asks does not own the tree.
        NodeNotTrashed, NodeTrashedWithAncestor: it is no root of what was trashed together.
    """
    return await purge_batch(work, await _hold(work, node_id), reason=_ASKED)


async def count_purge(work: Work, node_id: UUID) -> PurgeCounts:
    """What :func:`purge_node` would do: it is done, counted and undone, and nothing is written.

    Raises:
        NodeNotFound, RoleMissing, NodeNotTrashed, NodeTrashedWithAncestor: as for :func:`purge_node`.
    """
    batch = await _hold_batch(work, await _hold(work, node_id))
    async with work.db.begin_nested() as attempt:
        counts = await _erase(work, batch, reason=_ASKED)
        await attempt.rollback()
    return counts


async def purge_batch(work: Work, access: Access, *, reason: str) -> PurgeCounts:
    """Purge the batch of a held root of one, whoever asks; *reason* goes on record and says nothing of it.

    First all is erased, then the purge is recorded, so that of the events this one keeps its content. What
    was trashed before below it moves up to the former parent, in the bin as it was: an event of its own,
    caused by the purge, so that its row stays what its own events make of it.
    """
    root = work.node(access.node.id)
    batch = await _hold_batch(work, access)
    counts = await _erase(work, batch, reason=reason)
    payload = {"batch_id": str(root.trash_batch_id), "count": counts.nodes}
    purged = await work.say(WorkspaceEvent.NODE_PERMANENTLY_DELETED, root.id, payload)
    await work.lock(*batch.apart)
    for node_id, visibility in batch.apart.items():
        await _move_up(work, node_id, visibility, access, purged)
    await work.record("PurgeNode", root.id, {})
    return counts


async def _hold(work: Work, node_id: UUID) -> Access:
    [access] = await work.hold_trees(node_id)
    access.require_purging()
    access.require_trashed()
    return access


async def _hold_batch(work: Work, access: Access) -> _Batch:
    rows = await work.executor.fetch(PURGE["lock_batch"], access.node.id, access.visibility)
    return _Batch(
        node_ids=[row["id"] for row in rows if not row["apart"]],
        apart={row["id"]: Visibility(row["visibility"]) for row in rows if row["apart"]},
    )


async def _erase(work: Work, batch: _Batch, *, reason: str) -> PurgeCounts:
    erased = [
        await erase(
            work.db,
            AGGREGATE_TYPE,
            batch.node_ids[start : start + _ERASED_MAX],
            actor=work.caller.actor,
            reason=reason,
        )
        for start in range(0, len(batch.node_ids), _ERASED_MAX)
    ]
    [rows] = await work.executor.fetch(PURGE["delete_batch"], batch.node_ids)
    # After the rows: an export that is about to end holds them, and its file is there when they can go.
    files = await work.executor.fetch(PURGE["drop_files"], [str(one) for one in batch.node_ids])
    return PurgeCounts(
        **rows,
        events=sum(one.events for one in erased),
        commands=sum(one.commands for one in erased),
        tasks=sum(one.tasks for one in erased) + len(files),
        stored_answers=sum(one.answers for one in erased),
    )


async def _move_up(
    work: Work, node_id: UUID, visibility: Visibility, access: Access, purged: EventEnvelope
) -> None:
    """Put *node_id* where the purged node of *access* stood."""
    node, parent_id = work.node(node_id), access.node.parent_id
    above = access_of(access.chain[1:], None).visibility if parent_id else None
    payload = {
        "parent_id": str(parent_id) if parent_id else None,
        "former_parent_id": str(node.parent_id),
        "owner_id": access.owner,
        "position": node.position,
        "visibility": carried_visibility(node.visibility, visibility, above),
    }
    await work.say(WorkspaceEvent.NODE_MOVED, node_id, payload, cause=purged)
