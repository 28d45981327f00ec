"""Declare flows, and start them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from relaybox_types.naming import check_past_name
from sqlalchemy.ext.asyncio import AsyncSession

from relaybox.db import executor_of, load_queries, map_database_errors
from relaybox.flows._errors import FlowInvalid
from relaybox.flows._json import NAME_CHARACTERS_MAX, check_text, json_of
from relaybox.tasks import announce_tasks

if TYPE_CHECKING:
    from relaybox.flows._flow import Flow

__all__ = (
    "FlowDefinition",
    "FlowFunction",
    "flow",
    "start_flow",
    "start_flow_for_command",
)

_SQL: Final = load_queries(__package__ or "relaybox.flows", "flows.sql")
_ARGUMENTS_BYTES_MAX: Final = 1_048_576
#: Operators' commands recognise a flow by a version of at most nine digits in its task type.
_VERSION_MAX: Final = 999_999_999

#: The function of a flow; gets the flow and its arguments, and returns the flow's result.
FlowFunction = Callable[["Flow", dict[str, Any]], Awaitable[Mapping[str, Any] | None]]


@dataclass(frozen=True, kw_only=True)
class FlowDefinition:
    """A flow's function, with its name and the version of its code."""

    name: str
    version: int
    function: FlowFunction
    #: Types of the events for which the function may wait (:meth:`Flow.wait_for`).
    event_types: tuple[str, ...]

    @property
    def task_type(self) -> str:
        """Type of the flow's tasks: only runners that have this version claim them."""
        return f"{self.name}@{self.version}"


def flow(
    name: str, *, version: int = 1, event_types: Iterable[str] = ()
) -> Callable[[FlowFunction], FlowDefinition]:
    """Declare the decorated function as a flow.

    A flow that was started runs with the same version until it ends. Change the order, the names or the
    number of steps only in a new version. Keep the function of the former version until all flows that were
    started with that version have ended.

    Args:
        name: Name of the flow, 1 to 120 characters without ``@``.
        version: Version of the code, 1 to 999,999,999.
        event_types: Types of the events for which the function may wait (:meth:`Flow.wait_for`).

    Raises:
        FlowInvalid: The name or version is malformed.
        EventNameInvalid: An event type breaks the naming rule (G09).
    """
    check_text("the name of a flow", name, NAME_CHARACTERS_MAX)
    if "@" in name or not 1 <= version <= _VERSION_MAX:
        raise FlowInvalid(
            f"a flow needs a name without @ and a version of 1 to {_VERSION_MAX:,}, "
            f"not {name[:40]!r} and {version}"
        )
    types = tuple(check_past_name(one) for one in event_types)

    def declare(function: FlowFunction) -> FlowDefinition:
        return FlowDefinition(name=name, version=version, function=function, event_types=types)

    return declare


async def start_flow(
    db: AsyncSession,
    definition: FlowDefinition,
    arguments: Mapping[str, Any],
    *,
    flow_id: UUID | None = None,
    chain_id: UUID | None = None,
    events_since: datetime | None = None,
) -> UUID:
    """Start a flow in the caller's transaction, and return its id.

    Args:
        db: Session of the caller's transaction.
        definition: The flow to start, and the version with which it runs until it ends.
        arguments: JSON object that the function gets; at most about 1 MiB.
        flow_id: Id of the flow. If a flow with this id exists, nothing is started and the id is returned.
            None: a new id.
        chain_id: Chain to which the flow's events belong, such as ``event.correlation_id``. None: a new chain
            with the flow's id.
        events_since: Time since which the waits of the flow get events; usually the ``event.timestamp`` of
            the event for which the flow is started. It is needed because the consumer that records events
            for flows may already have recorded, before this call, an event that the flow will wait for. None:
            the waits get only events that are recorded after this call.

    Raises:
        FlowDocumentInvalid: *arguments* are too large or cannot be stored.
        FlowInvalid: *events_since* has no time zone.
    """
    document = _input(arguments, chain_id, events_since)
    with map_database_errors():
        rows = await executor_of(db).fetch(_SQL["start"], definition.task_type, document, flow_id)
    if rows:
        announce_tasks(db, [definition.task_type])
        return rows[0]["id"]
    assert flow_id is not None  # no row: a flow with this id exists
    return flow_id


async def start_flow_for_command(
    db: AsyncSession,
    definition: FlowDefinition,
    command_id: UUID,
    arguments: Mapping[str, Any],
    *,
    chain_id: UUID | None = None,
    events_since: datetime | None = None,
) -> UUID | None:
    """Start the flow that does the work of a RECEIVED command, in the caller's transaction.

    The command is PROCESSING until the flow ends. Then the command is COMPLETED, or FAILED with the error of
    the flow: ``FLOW_STEP_FAILED`` or ``FLOW_CANCELLED``. The flow's id is *command_id*, so a command has at
    most one flow.

    Args:
        db: Session of the caller's transaction.
        definition: The flow to start, and the version with which it runs until it ends.
        command_id: Id of the command, a row of ``command_inbox``.
        arguments: JSON object that the function gets; at most about 1 MiB.
        chain_id: Chain to which the flow's events belong: the correlation id of the command's events, such as
            ``event.correlation_id``. None: the chain whose id is *command_id*; this is the command's chain
            unless its caller has set a correlation id (``X-Correlation-Id``).
        events_since: As for :func:`start_flow`.

    Returns:
        The flow's id, also if an earlier call has started the flow. None, with nothing written, if the
        command has no flow and is not RECEIVED.

    Raises:
        FlowDocumentInvalid: *arguments* are too large or cannot be stored.
        FlowInvalid: *events_since* has no time zone.
    """
    document = _input(arguments, chain_id, events_since)
    with map_database_errors():
        rows = await executor_of(db).fetch(
            _SQL["start_for_command"], definition.task_type, document, command_id
        )
    if not rows:
        return None
    announce_tasks(db, [definition.task_type])
    return rows[0]["id"]


def _input(arguments: Mapping[str, Any], chain_id: UUID | None, events_since: datetime | None) -> str:
    if events_since is not None and events_since.tzinfo is None:
        raise FlowInvalid("events_since has no time zone; use event.timestamp or datetime.now(UTC)")
    document = {"arguments": dict(arguments), "chain_id": chain_id, "events_since": events_since}
    return json_of("the arguments of the flow", document, _ARGUMENTS_BYTES_MAX)
