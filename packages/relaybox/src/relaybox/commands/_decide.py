"""Decide a command: compute from the loaded aggregate, without I/O, the rows to write."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Self
from uuid import UUID, uuid4

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json, to_json
from relaybox_types.enums import CommandStatus
from relaybox_types.envelope import EventEnvelope, build_event_envelope

from relaybox.commands._domain import Aggregate, Domain, Handler
from relaybox.commands._errors import AggregateNotFound, DuplicateCommand, PayloadInvalid, StaleVersion
from relaybox.db import contains_nul
from relaybox.errors import Detail, error_details
from relaybox.events import Event, Events, Settlement
from relaybox.idempotency import Claim, ResponseParts
from relaybox.outbox import OutboxSettings

__all__ = (
    "Caller",
    "Command",
    "CommandResult",
    "Decision",
    "KeyedResponse",
    "LoadedAggregate",
    "check_owner",
    "decide",
    "document_of",
    "loaded_aggregate_from_row",
    "metadata_of",
)

_EVENTS_MAX: Final = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Caller:
    """The sender of a command, and the request or event that caused the command."""

    #: Name of the sender: the claim ``sub`` of a client's token, or the name of an agent.
    actor: str
    #: Service that accepted the command: ``api-gateway``, ``concept-agent``, …
    source_service: str
    #: Whether the sender is an agent (a service that works on tasks). Agents may change the aggregates of all
    #: principals, and send internal commands.
    internal: bool = False
    #: Id of the HTTP request; None if no request caused the command.
    request_id: str | None = None
    #: Correlation id of the chain of events that the command continues; None: the command begins a new chain,
    #: whose correlation id is the command's id.
    correlation_id: UUID | None = None
    #: Id of the consumed event that caused the command; None for a client's command.
    causation_id: UUID | None = None
    #: W3C trace context of the request; None if the request is not traced.
    traceparent: str | None = None

    @classmethod
    def following(cls, event: EventEnvelope, *, service: str) -> Self:
        """Return agent *service* as the sender of a command that *event* causes, in the chain of *event*."""
        return cls(
            actor=service,
            source_service=service,
            internal=True,
            correlation_id=event.correlation_id,
            causation_id=event.event_id,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Command:
    """A request to change an aggregate, before it is decided."""

    aggregate_id: UUID
    command_type: str
    payload: Mapping[str, Any]
    caller: Caller
    #: Version that the aggregate must have, otherwise the command is refused; None accepts any version.
    expected_version: int | None = None
    #: Whether the command creates the aggregate ``aggregate_id``, which must not exist.
    creates: bool = False
    command_id: UUID = field(default_factory=uuid4)
    #: The claim on the client's idempotency key; None for a command without a key.
    keyed_response: "KeyedResponse | None" = None


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyedResponse:
    """The claim on a client's idempotency key, and the function that builds the response to store."""

    claim: Claim
    build_response: "Callable[[CommandResult], ResponseParts]"


@dataclass(frozen=True, kw_only=True, slots=True)
class CommandResult:
    """The result of a command, for its sender."""

    command_id: UUID
    #: COMPLETED, or RECEIVED for a command that an agent will finish.
    status: str
    message: str
    aggregate_id: UUID
    #: Version of the aggregate after the command.
    version: int
    #: The aggregate after the command, of its domain's class.
    aggregate: Any = field(repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedAggregate:
    """An aggregate as read from the database, with its pending commands."""

    #: The principal that the aggregate belongs to.
    owner: str
    #: The aggregate as JSON.
    state: str
    #: Id of the pending command of each command type that has one.
    pending: Mapping[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """The rows that one command writes: inbox, snapshot, events, ends of pending commands."""

    command: Command
    status: CommandStatus
    #: The command's payload as JSON.
    payload: str
    #: JSON object with the aggregate's id, version and changed fields (of a new aggregate: all fields), and
    #: with ``expected_version`` (the version before the command) and ``aggregate_type``.
    snapshot: str
    #: Version of the aggregate after the command.
    version: int
    topic: str
    #: Id of each event, and its envelope as JSON, in the order of the aggregate's versions.
    events: tuple[tuple[UUID, str], ...]
    settlements: tuple[Settlement, ...]
    #: The aggregate after the command.
    aggregate: Aggregate

    def result(self) -> CommandResult:
        """Return the result for the sender; send it only after the decision is committed."""
        done = self.status is CommandStatus.COMPLETED
        return CommandResult(
            command_id=self.command.command_id,
            status=self.status.value,
            message="Command processed successfully" if done else "Command accepted; an agent works on it",
            aggregate_id=self.command.aggregate_id,
            version=self.version,
            aggregate=self.aggregate,
        )


def loaded_aggregate_from_row(row: Mapping[str, Any]) -> LoadedAggregate:
    """Return the aggregate in a row that the query ``load`` of ``commands.sql`` returned."""
    commands: str | None = row["commands"]
    return LoadedAggregate(
        owner=row["owner"], state=row["state"], pending=from_json(commands) if commands else {}
    )


def decide(
    domain: Domain[Any], command: Command, loaded: LoadedAggregate | None, outbox: OutboxSettings
) -> Decision:
    """Let the domain decide *command*; return the rows to write.

    The checks run in the order of the errors below, so that a request with several faults always gets the
    same error: 404, then 422 for type or payload, then 409, then 422 for the domain's rules.

    Args:
        domain: The domain, which declares the command and its decider.
        command: The command to decide.
        loaded: The aggregate as read from the database; None for a command that creates an aggregate.
        outbox: Determines the topic of the events, and checks their size.

    Raises:
        AggregateNotFound: The aggregate belongs to another principal.
        UnknownCommand: The domain has no handler for this type, or the caller may not use the handler.
        PayloadInvalid: The payload does not match the model, or PostgreSQL cannot store it.
        DuplicateCommand: A command of the same type is pending for the aggregate.
        StaleVersion: The aggregate's version is not the command's ``expected_version``.
        CommandRefused: The aggregate's rules forbid the command.
        TopicUndeclared, MessageTooLarge: The relay could not publish an event of the command, because the
            topic is not declared or the event is too large.
        AssertionError: The decider returned no event, or over 100 events.
    """
    caller = command.caller
    if loaded is not None:
        check_owner(command, loaded.owner)
    handler = domain.handler(command.command_type, internal=caller.internal, creates=command.creates)
    payload = _parse(handler, command)
    document = document_of(command.command_type, command.payload)
    state = _state(domain, command, loaded)
    if loaded is not None and (pending := loaded.pending.get(command.command_type)):
        raise DuplicateCommand(UUID(pending))
    if command.expected_version not in (None, state.version):
        raise StaleVersion(command.expected_version, state.version)
    events = handler.decide(state, payload, command.command_id)
    return _decision(domain, handler, command, document, state, events, outbox)


def check_owner(command: Command, owner: str | None) -> None:
    """Check that the caller may change an aggregate of *owner*: agents may change all, others their own.

    Raises:
        AggregateNotFound: The aggregate belongs to another principal.
    """
    if not command.caller.internal and owner != command.caller.actor:
        raise AggregateNotFound(command.aggregate_id)


def _parse(handler: Handler[Any], command: Command) -> BaseModel:
    try:
        return handler.model.model_validate(command.payload)
    except ValidationError as error:
        problems = error.errors(include_input=False, include_url=False, include_context=False)
        raise PayloadInvalid(command.command_type, error_details(problems, "payload")) from None


def document_of(command_type: str, payload: Mapping[str, Any]) -> str:
    """Return a command's payload as JSON that PostgreSQL can store.

    A payload that PostgreSQL rejects would fail the statement of the whole batch, so it is refused here.

    Raises:
        PayloadInvalid: The payload cannot be written as JSON, or contains the NUL character.
    """
    try:
        document = to_json(payload)
    except ValueError:
        detail = Detail(field="payload", message="cannot be written as JSON, or is nested too deeply")
        raise PayloadInvalid(command_type, [detail]) from None
    if contains_nul(document):
        detail = Detail(field="payload", message="must not contain the NUL character (U+0000)")
        raise PayloadInvalid(command_type, [detail])
    return document.decode()


def _state(domain: Domain[Any], command: Command, loaded: LoadedAggregate | None) -> Aggregate:
    if loaded is None:
        return domain.aggregate(id=command.aggregate_id, owner=command.caller.actor)
    return domain.aggregate.model_validate_json(loaded.state)


def _decision(
    domain: Domain[Any],
    handler: Handler[Any],
    command: Command,
    document: str,
    before: Aggregate,
    events: Events,
    outbox: OutboxSettings,
) -> Decision:
    if not 1 <= len(events) <= _EVENTS_MAX:
        raise AssertionError(
            f"the decider of {handler.command_type} returned {len(events)} events; "
            f"return 1 to {_EVENTS_MAX} events, or raise a CommandRefused"
        )
    after, topic = before, outbox.topic_for(domain.name, domain.topic)
    envelopes: list[tuple[UUID, str]] = []
    for event in events:
        after = after.apply(domain.event_types.upcast_decided(event)).model_copy(
            update={"version": after.version + 1}
        )
        cause = command.caller.causation_id or (envelopes[-1][0] if envelopes else None)
        envelope = _envelope(domain, command, event, version=after.version, cause=cause)
        text = envelope.model_dump_json()
        outbox.check(topic, envelope.aggregate_id, text.encode())
        envelopes.append((envelope.event_id, text))
    snapshot = after.model_dump(mode="json", include=None if command.creates else _changed(before, after))
    snapshot |= {"expected_version": before.version, "aggregate_type": domain.aggregate_type}
    return Decision(
        command=command,
        status=CommandStatus.RECEIVED if handler.pending else CommandStatus.COMPLETED,
        payload=document,
        snapshot=to_json(snapshot).decode(),
        version=after.version,
        topic=topic,
        events=tuple(envelopes),
        settlements=tuple(event.settles for event in events if event.settles),
        aggregate=after,
    )


def _changed(before: Aggregate, after: Aggregate) -> set[str]:
    """Return the fields to write: id, version, and each field that was replaced, even by an equal value."""
    fields = type(after).model_fields
    return {"id", "version"} | {name for name in fields if getattr(after, name) is not getattr(before, name)}


def _envelope(
    domain: Domain[Any], command: Command, event: Event, *, version: int, cause: UUID | None
) -> EventEnvelope:
    return build_event_envelope(
        event_type=event.type,
        event_version=event.event_version,
        aggregate_type=domain.aggregate_type,
        aggregate_id=str(command.aggregate_id),
        version=version,
        correlation_id=command.caller.correlation_id or command.command_id,
        causation_id=cause,
        payload=dict(event.payload),
        metadata=metadata_of(command.caller, command.command_id),
        actor_id=command.caller.actor,
        target_type=domain.target_type,
    )


def metadata_of(caller: Caller, command_id: UUID | None) -> dict[str, Any]:
    """Return the ``metadata`` of an event that *caller* causes; keys whose value would be None are left out.

    The keys are ``user_id``, ``source_service``, ``command_id``, ``request_id``, ``timestamp`` (now) and
    ``traceparent``. *command_id* is None for an event that no command causes.
    """
    known = {
        "user_id": caller.actor,
        "source_service": caller.source_service,
        "command_id": None if command_id is None else str(command_id),
        "request_id": caller.request_id,
        "timestamp": datetime.now(UTC).isoformat(),
        "traceparent": caller.traceparent,
    }
    return {name: value for name, value in known.items() if value is not None}
