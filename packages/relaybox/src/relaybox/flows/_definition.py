"""Declare flows, and start them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from pydantic_core import PydanticSerializationError, to_json
from relaybox_types.naming import check_past_name
from sqlalchemy.ext.asyncio import AsyncSession

from relaybox.db import contains_nul, executor_of, load_queries, map_database_errors
from relaybox.flows._errors import FlowDocumentInvalid, FlowInvalid
from relaybox.tasks import announce_tasks

if TYPE_CHECKING:
    from relaybox.flows._flow import Flow

__all__ = ("NAME_CHARACTERS_MAX", "FlowDefinition", "FlowFunction", "flow", "json_of", "start_flow")

_SQL: Final = load_queries(__package__ or "relaybox.flows", "flows.sql")
NAME_CHARACTERS_MAX: Final = 120
_BYTES_MAX: Final = 1_048_576

#: The function of a flow; gets the flow and its arguments, and returns the flow's result.
FlowFunction = Callable[["Flow", dict[str, Any]], Awaitable[Mapping[str, Any] | None]]


@dataclass(frozen=True, kw_only=True)
class FlowDefinition:
    """A flow's function, with its name and the version of its code."""

    name: str
    version: int
    function: FlowFunction
    #: Types of events for which the flow waits.
    event_types: tuple[str, ...]

    @property
    def task_type(self) -> str:
        """Type of the flow's tasks: only runners that have this version claim them."""
        return f"{self.name}@{self.version}"


def flow(
    name: str, *, version: int = 1, event_types: Iterable[str] = ()
) -> Callable[[FlowFunction], FlowDefinition]:
    """Declare the decorated function as a flow.

    Flows that have begun go on with the version with which they began. Change the order, the names or the
    number of steps only in a new version, and keep the former function as long as flows of it are open.

    Args:
        name: Name of the flow, 1 to 120 characters without ``@``.
        version: Version of the code, from 1.
        event_types: The types of events for which the flow waits.

    Raises:
        FlowInvalid: The name or version is malformed.
        EventNameInvalid: An event type breaks the naming rule (G09).
    """
    if not 1 <= len(name) <= NAME_CHARACTERS_MAX or "@" in name or version < 1:
        raise FlowInvalid(
            f"a flow needs a name of 1 to {NAME_CHARACTERS_MAX} characters without @ and a version from 1, "
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
) -> UUID:
    """Start a flow in the caller's transaction, and return its id.

    Args:
        db: Session of the caller's transaction.
        definition: The flow, in the version that it keeps.
        arguments: JSON object that the function gets.
        flow_id: Id of the flow; a flow with this id is started once, however often this is called. None: a
            new id.
        chain_id: Chain to which the flow's events belong, such as ``event.correlation_id``. None: the flow's
            id begins a new chain.

    Raises:
        FlowDocumentInvalid: *arguments* are too large or cannot be stored.
    """
    chain = None if chain_id is None else str(chain_id)
    document = json_of("arguments", {"arguments": dict(arguments), "chain_id": chain})
    with map_database_errors():
        rows = await executor_of(db).fetch(_SQL["start"], definition.task_type, document, None, flow_id)
    if rows:
        announce_tasks(db, [definition.task_type])
        return rows[0]["id"]
    assert flow_id is not None  # only an existing id gives no row
    return flow_id


def json_of(name: str, document: Mapping[str, Any]) -> str:
    """Return *document* as JSON; *name* says in an error what it is.

    Raises:
        FlowDocumentInvalid: It is larger than 1 MiB, or contains NUL or a value that JSON has not.
    """
    try:
        value = to_json(document)
    except (PydanticSerializationError, ValueError) as error:
        raise FlowDocumentInvalid(f"{name} cannot be written as JSON: {error}") from error
    if len(value) > _BYTES_MAX or contains_nul(value):
        raise FlowDocumentInvalid(
            f"{name} has {len(value):,} bytes of JSON; at most {_BYTES_MAX:,} are allowed, without the "
            "NUL character; store the data elsewhere and return a reference"
        )
    return value.decode()
