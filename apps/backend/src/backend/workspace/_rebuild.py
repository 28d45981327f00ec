"""Making the rows of a workspace again from its events, and comparing them with the tables."""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from uuid import UUID

from pydantic import BaseModel
from relaybox.db import Database, Executor, executor_of, load_queries
from relaybox.events import RecordedEvent, fetch_stream, iterate_streams
from shared_types.workspace import (
    WorkspaceChapter,
    WorkspaceEvent,
    WorkspaceGrant,
    WorkspaceLink,
    WorkspaceNode,
    WorkspaceReply,
    WorkspaceThread,
    WorkspaceVersion,
)
from sqlalchemy.ext.asyncio import AsyncSession

from backend.rebuilding import DifferenceKind, HistoryUnreadable
from backend.workspace.core import ACCESS_SQL, NODES, TABLES, Rows, collect_changes, write_rows
from backend.workspace.projection import AGGREGATE_TYPE, NodeEvent, NodeState, apply_event

__all__ = ("NodeDifference", "WorkspaceReport", "rebuild_workspace")

_SQL: Final = load_queries(__package__ or "backend.workspace", "rebuild.sql")
#: Of one transaction.
_BATCH_NODES_MAX: Final = 100
_MODELS: Final[Mapping[str, type[BaseModel]]] = {
    NODES: WorkspaceNode,
    "chapters": WorkspaceChapter,
    "versions": WorkspaceVersion,
    "threads": WorkspaceThread,
    "replies": WorkspaceReply,
    "grants": WorkspaceGrant,
    "links": WorkspaceLink,
}
#: The column that tells the rows of a node apart.
_KEYS: Final = {"versions": "number", "grants": "user_id"}


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeDifference:
    """One node whose rows are not what its events say."""

    node_id: UUID
    kind: DifferenceKind
    #: The tables that differ, without their prefix.
    tables: tuple[str, ...]
    #: The rows are now what the events say.
    repaired: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkspaceReport:
    """What a run found."""

    #: Nodes that have events, purged ones included.
    nodes: int
    events: int
    differences: int
    repaired: int


async def rebuild_workspace(
    database: Database, *, write: bool, on_difference: Callable[[NodeDifference], None]
) -> WorkspaceReport:
    """Fold every node's events and compare the result with its rows; *write* repairs what differs.

    May run beside a working product: what looks different is looked at again under the node's lock, and
    repaired there. What was erased has no rows; rows without events are removed. The secrets of links are in
    no event and stay as they are. Memory does not grow with the number of nodes.

    Raises:
        HistoryUnreadable: a node's events make no rows; what was repaired before stays so.
        DatabaseUnavailable: PostgreSQL is away.
    """
    nodes = events = differences = repaired = 0

    async def look_again(suspects: Sequence[UUID]) -> None:
        nonlocal differences, repaired
        if not suspects:
            return
        for found in await database.run_in_transaction(partial(_settle, node_ids=suspects, write=write)):
            differences += 1
            repaired += found.repaired
            on_difference(found)

    async with database.connection() as connection:
        async with aclosing(_batches(connection)) as batches:
            async for batch, told in batches:
                nodes, events = nodes + len(batch), events + told
                live = await _live(connection, list(batch))
                await look_again([one for one, state in batch.items() if live[one] != state])
        async with aclosing(_without_events(connection)) as pages:
            async for page in pages:
                await look_again(page)
    return WorkspaceReport(nodes=nodes, events=events, differences=differences, repaired=repaired)


async def _batches(executor: Executor) -> AsyncGenerator[tuple[dict[UUID, NodeState], int]]:
    """Nodes as their events say, and how many events these were."""
    batch: dict[UUID, _Fold] = {}
    told = 0
    async for event in iterate_streams(executor, AGGREGATE_TYPE):
        node_id = UUID(event.aggregate_id)
        if node_id not in batch and len(batch) >= _BATCH_NODES_MAX:
            yield {one: fold.state for one, fold in batch.items()}, told
            batch, told = {}, 0
        batch.setdefault(node_id, _Fold()).then(event)
        told += 1
    if batch:
        yield {one: fold.state for one, fold in batch.items()}, told


class _Fold:
    """A node on its way through its events."""

    def __init__(self) -> None:
        self.state = NodeState()
        self._version: int = 0
        self._erased = False

    def then(self, event: RecordedEvent) -> None:
        """The node after *event*, its next one.

        Raises:
            HistoryUnreadable: it cannot follow.
        """
        if event.version != self._version + 1:
            raise HistoryUnreadable(
                f"node {event.aggregate_id} lacks its event of version {self._version + 1}; "
                "restore domain_events from a backup"
            )
        self._version = event.version
        # What was purged has no rows any more, whatever it went through before.
        self._erased = self._erased or event.payload.get("erased") is True
        if self._erased:
            self.state = NodeState()
            return
        try:
            apply_event(self.state, _node_event(event))
        except (AssertionError, KeyError, TypeError, ValueError) as error:
            raise HistoryUnreadable(
                f"node {event.aggregate_id} cannot be read at version {event.version} ({event.type}, "
                f"{type(error).__name__}); run a release that knows this event"
            ) from error


def _node_event(event: RecordedEvent) -> NodeEvent:
    return NodeEvent(
        type=WorkspaceEvent(event.type),
        node_id=UUID(event.aggregate_id),
        payload=event.payload,
        actor=event.metadata["user_id"],
        at=event.created_at,
        version=event.version,
    )


async def _live(executor: Executor, node_ids: Sequence[UUID]) -> dict[UUID, NodeState]:
    """The rows as they are stored."""
    states = {node_id: NodeState() for node_id in node_ids}
    for row in await executor.fetch(_SQL["rows_of_nodes"], list(node_ids)):
        table, state = row["table_name"], states[row["node_id"]]
        model: Any = _MODELS[table].model_validate_json(row["row"])
        if table == NODES:
            state.node = model
        else:
            getattr(state, table)[getattr(model, _KEYS.get(table, "id"))] = model
    return states


async def _without_events(executor: Executor) -> AsyncGenerator[list[UUID]]:
    after = UUID(int=0)
    while rows := await executor.fetch(_SQL["nodes_without_events_page"], after, _BATCH_NODES_MAX):
        yield [row["node_id"] for row in rows]
        after = rows[-1]["node_id"]


async def _settle(db: AsyncSession, *, node_ids: Sequence[UUID], write: bool) -> list[NodeDifference]:
    executor = executor_of(db)
    # Whoever changes a node holds this lock: between the two readings nothing moves.
    await executor.fetch(ACCESS_SQL["lock_nodes"], list(node_ids))
    live = await _live(executor, node_ids)
    written: Rows = {}
    gone: Rows = {}
    found: list[NodeDifference] = []
    for node_id in node_ids:
        rebuilt = await _rebuilt(executor, node_id)
        if live[node_id] == rebuilt:
            continue
        collect_changes(_as_far_as_equal(live[node_id], rebuilt), rebuilt, written=written, deleted=gone)
        found.append(_difference(node_id, live[node_id], rebuilt, repaired=write))
    if write:
        await write_rows(executor, written=written, deleted=gone)
    return found


async def _rebuilt(executor: Executor, node_id: UUID) -> NodeState:
    fold = _Fold()
    version = 0
    while events := await fetch_stream(executor, AGGREGATE_TYPE, str(node_id), after_version=version):
        for event in events:
            fold.then(event)
        version = events[-1].version
    return fold.state


def _as_far_as_equal(live: NodeState, rebuilt: NodeState) -> NodeState:
    """*live* with the very objects of *rebuilt* where they are equal, so that only the others are written."""
    same = NodeState(node=rebuilt.node if live.node == rebuilt.node else live.node)
    for table in TABLES:
        new: Mapping[Any, BaseModel] = getattr(rebuilt, table)
        old: Mapping[Any, BaseModel] = getattr(live, table)
        getattr(same, table).update(
            {key: new[key] if new.get(key) == row else row for key, row in old.items()}
        )
    return same


def _difference(node_id: UUID, live: NodeState, rebuilt: NodeState, *, repaired: bool) -> NodeDifference:
    kind = DifferenceKind.DIFFERENT
    if live == NodeState():
        kind = DifferenceKind.MISSING
    elif rebuilt == NodeState():
        kind = DifferenceKind.EXTRA
    tables = [NODES] if live.node != rebuilt.node else []
    tables += [table for table in TABLES if getattr(live, table) != getattr(rebuilt, table)]
    return NodeDifference(node_id=node_id, kind=kind, tables=tuple(tables), repaired=repaired)
