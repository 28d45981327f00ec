"""Query flows and pauses: which flow waits, for which event, resume or time, and since when (G44)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, Final, Self
from uuid import UUID

from pydantic_core import from_json
from relaybox_types.enums import HandleStatus, TaskStatus

from relaybox.db import Executor, load_queries
from relaybox.operations._errors import SelectionEmpty

__all__ = (
    "FlowDetails",
    "FlowSelection",
    "FlowStep",
    "FlowSummary",
    "Pause",
    "list_flows",
    "list_other_pauses",
    "show_flow",
    "show_pause",
)

_SQL: Final = load_queries(__package__ or "relaybox.operations", "flows.sql")
_FLOWS, _PAUSES = _SQL["all_flows"], _SQL["all_pauses"]
_LIST: Final = _SQL.including("list_flows", all_flows=_FLOWS)
_OTHERS: Final = _SQL.including("other_pauses", all_pauses=_PAUSES)
_LAST: Final = _SQL.including("last_pause", all_pauses=_PAUSES)
_SHOW: Final = _SQL.including("show_flow", all_flows=_FLOWS)
_PAUSES_OF_FLOW: Final = _SQL.including("pauses_of_flow", all_pauses=_PAUSES)
#: Largest number of pauses that are read for one flow. A flow has at most this many steps.
_PAUSES_MAX: Final = 1_000
_UNFINISHED: Final = (TaskStatus.PENDING, TaskStatus.RUNNING, TaskStatus.FAILED)


@dataclass(frozen=True, kw_only=True, slots=True)
class FlowSelection:
    """Conditions that a flow must meet, all of them."""

    #: Names with or without version, such as ``Shop.Refund`` and ``Shop.Refund@1``; empty: every name.
    names: Sequence[str] = ()
    #: Empty: every flow except COMPLETED and CANCELLED ones.
    statuses: Sequence[TaskStatus] = ()
    #: True selects only flows that wait for an event, a resume or a time.
    waiting: bool = False

    def arguments(self) -> tuple[Any, ...]:
        """Return the parameters $1 to $3 of the query ``list_flows``."""
        return [*self.names] or None, [str(one) for one in self.statuses or _UNFINISHED], self.waiting


@dataclass(frozen=True, kw_only=True, slots=True)
class FlowSummary:
    """One flow of Relaybox's own engine, without its input and results."""

    id: UUID
    name: str
    version: int
    #: PENDING while the flow waits, or until a runner claims it.
    status: TaskStatus
    #: Correlation id of the pause for which the flow waits; None if it waits for a time, or does not wait.
    correlation_id: str | None
    #: Time when the wait ends by itself; None if the flow does not wait.
    waits_until: datetime | None
    #: Number of steps that are done, including waits that have ended.
    steps: int
    #: Number of attempts since the flow was started, or since its last wait or the last retry by an operator.
    attempts: int
    #: Error of the last failed attempt; None if no attempt has failed since the last wait.
    error_code: str | None
    error: str | None
    created_at: datetime
    updated_at: datetime

    @classmethod
    def from_record(cls, record: Mapping[str, Any], **values: Any) -> Self:
        """Return the flow in *record*.

        Args:
            record: A row of a query that includes the query ``all_flows``.
            **values: The fields ``correlation_id`` and ``steps``, which ``all_flows`` does not return.
        """
        name, _, version = record["task_type"].rpartition("@")
        same = ("id", "attempts", "error_code", "error", "created_at", "updated_at")
        return cls(
            **{one: record[one] for one in same},
            name=name,
            version=int(version),
            status=TaskStatus(record["status"]),
            waits_until=record["not_before"],
            **values,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Pause:
    """One pause of a flow in any engine: a row of ``flow_resume_handles``.

    The resume handle and the payload of the resume are left out, because they may contain personal data.
    """

    correlation_id: str
    status: HandleStatus
    #: Whether the pause was cancelled; its status is then EXPIRED.
    cancelled: bool
    #: False if only a resume has arrived, and is kept until a pause is requested.
    registered: bool
    #: Whether a resume has arrived. If the status is PENDING_PAUSE, the resume is kept until the flow pauses.
    has_payload: bool
    expires_at: datetime | None
    #: The event for which a flow of Relaybox's own engine waits; None for any other pause.
    event_type: str | None
    key: str | None
    created_at: datetime
    updated_at: datetime

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Return the pause in *record*, a result of a query with ``all_pauses``."""
        values: dict[str, Any] = {one.name: record[one.name] for one in fields(cls)}
        values["status"] = HandleStatus(record["status"])
        return cls(**values)

    @property
    def can_be_resumed(self) -> bool:
        """Whether a resume would end this pause, now or when the flow has paused."""
        return self.status in (HandleStatus.PENDING_PAUSE, HandleStatus.PAUSED) and not self.has_payload


@dataclass(frozen=True, kw_only=True, slots=True)
class FlowStep:
    """One step of a flow that is done, or one wait that has ended."""

    position: int
    name: str
    ended_at: datetime
    #: Recorded result of the step or wait; None unless requested.
    result: Any = field(repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class FlowDetails:
    """One flow with its steps and pauses, and the actions of operators on it."""

    flow: FlowSummary
    #: Input and result of the flow; None unless requested.
    input_data: Any = field(repr=False)
    result_data: Any = field(repr=False)
    steps: Sequence[FlowStep]
    #: Pauses of the flow, oldest first, at most 1,000.
    pauses: Sequence[Pause]
    #: Actions of operators on the flow, oldest first, each with ``at``, ``by``, ``act`` and ``reason``.
    acts: Sequence[Mapping[str, Any]]


async def list_flows(db: Executor, selection: FlowSelection, *, flows_max: int) -> list[FlowSummary]:
    """Return at most *flows_max* flows of *selection*, the oldest first, without their input and results.

    Raises:
        DatabaseError: PostgreSQL is unreachable or too busy.
    """
    found = await db.fetch(_LIST, *selection.arguments(), flows_max)
    return [
        FlowSummary.from_record(row, correlation_id=row["correlation_id"], steps=row["steps"])
        for row in found
    ]


async def list_other_pauses(db: Executor, *, pauses_max: int) -> list[Pause]:
    """Return waiting pauses of other engines, and resumes that are kept for a pause not requested yet.

    These are at most *pauses_max*, ordered by the time when they expire. Pauses of Relaybox's own engine are
    left out, because :func:`list_flows` shows them.

    Raises:
        DatabaseError: PostgreSQL is unreachable or too busy.
    """
    return [Pause.from_record(row) for row in await db.fetch(_OTHERS, pauses_max)]


async def show_flow(db: Executor, flow_id: UUID, *, with_payload: bool = False) -> FlowDetails:
    """Return the flow *flow_id*, its steps and its pauses.

    Args:
        db: A connection.
        flow_id: Id of the flow, and of its task.
        with_payload: Whether to return input and results, which may contain personal data.

    Raises:
        SelectionEmpty: There is no such flow.
        DatabaseError: PostgreSQL is unreachable or too busy.
    """
    found = await db.fetch(_SHOW, flow_id, with_payload)
    if not found:
        raise SelectionEmpty(f"there is no flow {flow_id}; `relaybox flow list` shows the flows")
    [record] = found
    steps = await db.fetch(_SQL["steps_of_flow"], flow_id, with_payload)
    pauses = [Pause.from_record(row) for row in await db.fetch(_PAUSES_OF_FLOW, flow_id, _PAUSES_MAX)]
    waiting = [pause.correlation_id for pause in pauses if pause.registered and pause.can_be_resumed]
    return FlowDetails(
        flow=FlowSummary.from_record(
            record, correlation_id=waiting[-1] if waiting else None, steps=len(steps)
        ),
        input_data=_document(record["input_data"]),
        result_data=_document(record["result_data"]),
        steps=[FlowStep(**{**step, "result": _document(step["result"])}) for step in steps],
        pauses=pauses,
        acts=record["acts"],
    )


async def show_pause(db: Executor, correlation_id: str) -> Pause | None:
    """Return the last pause of *correlation_id*, None if there is none.

    Raises:
        DatabaseError: PostgreSQL is unreachable or too busy.
    """
    try:
        flow_id = UUID(correlation_id.partition("/")[0])
    except ValueError:
        flow_id = None
    found = await db.fetch(_LAST, correlation_id, flow_id)
    return Pause.from_record(found[0]) if found else None


def _document(text: str | None) -> Any:
    return None if text is None else from_json(text)
