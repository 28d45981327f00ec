"""Declare a domain: its aggregate, its events, its commands."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from inspect import isasyncgenfunction, iscoroutinefunction, signature
from typing import Any, ClassVar, Final, Generic, Self, TypeVar, get_type_hints, overload
from uuid import UUID

from pydantic import BaseModel, ConfigDict
from relaybox_types.naming import check_past_name

from relaybox.commands._errors import CommandRefused, UnknownCommand
from relaybox.db import load_queries
from relaybox.events import Event, Events, EventType, EventTypes, Upcaster

__all__ = ("Aggregate", "Domain", "Handler", "SnapshotQueries")

#: Matches the empty string between two words of a PascalCase name.
_WORD_BREAK: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
#: Names of path parameters that a domain's routes use for other ids than the aggregate's.
_TAKEN_PARAMETERS: Final = frozenset({"command_id", "task_id"})
_SQL: Final = load_queries(__package__ or "relaybox.commands", "snapshots.sql")


class Aggregate(BaseModel):
    """The unit of consistency: its commands are decided one after the other, each on the latest state.

    Subclasses add fields and :meth:`apply`. ``apply`` must be pure, because the state rebuilt from the events
    must equal the stored state.
    """

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    id: UUID
    #: The principal that the aggregate belongs to; other principals cannot see it.
    owner: str
    #: Number of recorded events of the aggregate.
    version: int = 0

    def apply(self, event: Event) -> Self:
        """Return the state after *event*; the library increments the version of the aggregate.

        The payload of *event* has the declared version, even if the event was recorded with an earlier one.
        Replace a field that changes, never modify its list or dictionary in place: a field that is the same
        object as before is not written to the snapshot.
        """
        raise NotImplementedError(f"{type(self).__name__} must define apply() for {event.type}")


A = TypeVar("A", bound=Aggregate)
C = TypeVar("C", bound=BaseModel)
Decider = Callable[[A, C], Events] | Callable[[A, C, UUID], Events]


@dataclass(frozen=True, kw_only=True, slots=True)
class SnapshotQueries:
    """SQL that reads and writes the snapshots of a domain with a table of its own.

    * ``load`` returns the columns ``id``, ``aggregate_type``, ``owner`` and ``state`` (the aggregate as JSON
      or JSONB) of the rows with ``id = ANY($1::uuid[])``.
    * ``create`` and ``advance`` get ``$1``, the text of a JSON array of aggregates, and return the ``id`` of
      each row that they write. Each aggregate also has ``expected_version`` and ``aggregate_type``.
    * ``create`` inserts rows. ``advance`` locks rows in the order of ids, and updates only rows whose version
      is ``expected_version``. The aggregates for ``advance`` have ``id``, ``version`` and the changed fields;
      other fields keep their stored values.
    """

    load: str
    create: str
    advance: str

    @classmethod
    def from_mapping(cls, queries: Mapping[str, str]) -> Self:
        """Return the queries ``load``, ``create`` and ``advance`` of a loaded SQL file as one object."""
        return cls(load=queries["load"], create=queries["create"], advance=queries["advance"])


@dataclass(frozen=True, kw_only=True, slots=True)
class Handler(Generic[A]):
    """A declared command: its model, its decider, and its permitted callers."""

    command_type: str
    model: type[BaseModel]
    #: The decider, always with three parameters: ``(aggregate, command, command_id) -> events``.
    decide: Callable[[A, Any, UUID], Events]
    #: Whether the command stays pending until an agent (a service that works on tasks) reports the end of the
    #: command (response 202); otherwise the decision completes the command (response 200).
    pending: bool = False
    #: Whether the command creates an aggregate.
    creates: bool = False
    #: Whether only agents may send the command; HTTP routes refuse it.
    internal: bool = False
    #: Refusals that the decider may raise, for the OpenAPI document.
    refuses: tuple[type[CommandRefused], ...] = ()


class Domain(Generic[A]):
    """One type of aggregate with its events and commands.

    Names of events are checked when they are declared (G09). A new command needs one Pydantic model, and one
    function decorated with :meth:`command`.
    """

    #: Queries for aggregates that are stored in ``aggregate_snapshots``, the library's table.
    LIBRARY_SNAPSHOTS: ClassVar = SnapshotQueries.from_mapping(_SQL)

    def __init__(
        self,
        name: str,
        *,
        aggregate: type[A],
        aggregate_type: str,
        topic: str = "domain-events",
        target_type: str = "OTHER",
        snapshots: SnapshotQueries | None = None,
        naming: Callable[[str], str] = check_past_name,
    ) -> None:
        """Declare the domain.

        Args:
            name: First part of the names of events, such as ``Shop.Order``.
            aggregate: Class of the state.
            aggregate_type: Value of ``aggregate_type`` in events and snapshots.
            topic: Topic of the domain's events, one of ``OUTBOX_TOPICS``. ``OUTBOX_ROUTES`` may route
                ``domain-events`` to another topic.
            target_type: Kind of object that the domain's events are about, as defined by the application.
            snapshots: Queries of the domain's own table; None stores snapshots in ``aggregate_snapshots``.
            naming: The naming rule: a function that gets the name of an event and returns it, or raises
                EventNameInvalid.

        Raises:
            TypeError: *aggregate* is not a subclass of :class:`Aggregate` that defines ``apply``.
        """
        _check_aggregate(aggregate)
        self.name = name
        self._naming = naming
        self.aggregate = aggregate
        self.aggregate_type = aggregate_type
        self.topic = topic
        self.target_type = target_type
        self.snapshots = snapshots or self.LIBRARY_SNAPSHOTS
        self.handlers: dict[str, Handler[A]] = {}
        #: The declared events. Readers use them to convert the payloads of recorded events to the declared
        #: versions.
        self.event_types = EventTypes()
        self._listeners: list[Callable[[], None]] = []

    def __repr__(self) -> str:
        return f"<Domain {self.name} [{', '.join(self.handlers) or 'no commands'}]>"

    @property
    def id_parameter(self) -> str:
        """Name of the path parameter with the aggregate's id: ``order_id`` in the domain ``Shop.Order``.

        If another path parameter of the routes has this name, the domain's whole name is used, such as
        ``shop_task_id`` in the domain ``Shop.Task``.
        """
        *_, aggregate = self.name.split(".")
        name = f"{_snake_case(aggregate)}_id"
        return f"{_snake_case(self.name)}_id" if name in _TAKEN_PARAMETERS else name

    def on_declaration(self, action: Callable[[], None]) -> None:
        """Call *action* after each later declaration of a command."""
        self._listeners.append(action)

    def event(
        self, action: str, *, version: int = 1, upcast: Mapping[int, Upcaster] | None = None
    ) -> EventType:
        """Declare an event ``<domain name>.<action>``.

        Args:
            action: The last part of the name.
            version: The version of the payloads that deciders return.
            upcast: For each earlier version, the function that turns a payload of this version into a payload
                of the next version.

        Raises:
            EventNameInvalid: The name breaks the domain's naming rule.
            EventTypeInvalid: *upcast* does not have one function for each earlier version, or this event is
                declared already with another version or other upcasters.
        """
        declared = EventType(self._naming(f"{self.name}.{action}"), version, upcast or {})
        self.event_types.add(declared)
        return declared

    @overload
    def command(self, decide: Decider[A, C], /) -> Decider[A, C]: ...
    @overload
    def command(
        self,
        /,
        *,
        pending: bool = False,
        creates: bool = False,
        internal: bool = False,
        refuses: Sequence[type[CommandRefused]] = (),
    ) -> Callable[[Decider[A, C]], Decider[A, C]]: ...
    def command(
        self,
        decide: Decider[A, C] | None = None,
        /,
        *,
        pending: bool = False,
        creates: bool = False,
        internal: bool = False,
        refuses: Sequence[type[CommandRefused]] = (),
    ) -> Any:
        """Declare a command by its decider ``(aggregate, command) -> events``.

        The command's type is the name of the model that annotates the second parameter. The decider is pure;
        to refuse the command, it raises a :class:`CommandRefused`. A third parameter of type ``UUID``
        receives the command's id. If an agent (a service that works on tasks) will end this command by a
        second command, the report, store this id in the aggregate: the decider of the report needs the id for
        its :class:`Settlement`.

        Args:
            decide: The decider, if the decorator is used without arguments.
            pending: Whether the command waits for an agent, see :class:`Handler`.
            creates: Whether the command creates an aggregate.
            internal: Whether only agents may send the command.
            refuses: Refusals that the decider may raise, for the OpenAPI document. A refusal that is missing
                here is sent to the client in the same way, and the service logs a warning.

        Raises:
            TypeError: The decider is asynchronous, its second parameter is not annotated with a Pydantic
                model, its third parameter is not annotated with ``UUID``, it has more than three parameters,
                or the command type is declared already.
        """

        def declare(decider: Decider[A, C]) -> Decider[A, C]:
            model, decide_with_id = _signature_of(decider)
            if model.__name__ in self.handlers:
                raise TypeError(f"{self.name} declares {model.__name__} twice; rename one of the models")
            self.handlers[model.__name__] = Handler(
                command_type=model.__name__,
                model=model,
                decide=decide_with_id,
                pending=pending,
                creates=creates,
                internal=internal,
                refuses=tuple(refuses),
            )
            for listener in self._listeners:
                listener()
            return decider

        return declare if decide is None else declare(decide)

    def handler(self, command_type: str, *, internal: bool, creates: bool) -> Handler[A]:
        """Return the handler of *command_type*.

        Args:
            command_type: Name of the command's model.
            internal: Whether the sender is an agent, which may also send internal commands.
            creates: Whether the command must create an aggregate; otherwise it must not.

        Raises:
            UnknownCommand: The domain has no handler of this type, the handler is internal and the sender is
                not an agent, or the handler's ``creates`` differs from *creates*.
        """

        def fits(one: Handler[A]) -> bool:
            return one.creates == creates and (internal or not one.internal)

        found = self.handlers.get(command_type)
        if found is None or not fits(found):
            raise UnknownCommand(command_type, [name for name, one in self.handlers.items() if fits(one)])
        return found


def _snake_case(name: str) -> str:
    return re.sub(r"\W+", "_", _WORD_BREAK.sub("_", name)).lower()


def _check_aggregate(aggregate: Any) -> None:
    if not (isinstance(aggregate, type) and issubclass(aggregate, Aggregate)):
        raise TypeError(f"{aggregate!r} cannot be a domain's aggregate; derive it from {Aggregate.__name__}")
    if aggregate.apply is Aggregate.apply:
        raise TypeError(f"{aggregate.__qualname__} has no apply(); define apply(self, event) -> Self")


def _signature_of(
    decider: Callable[..., Events],
) -> tuple[type[BaseModel], Callable[[Any, Any, UUID], Events]]:
    """Return the command's model, and *decider* as a function that also accepts the command's id.

    Raises:
        TypeError: See :meth:`Domain.command`.
    """
    name = getattr(decider, "__qualname__", repr(decider))
    if iscoroutinefunction(decider) or isasyncgenfunction(decider):
        raise TypeError(
            f"{name} is asynchronous, but a decider must be pure; write it with def, and read what it needs "
            "before the command is sent"
        )
    hints = get_type_hints(decider)
    _, *annotations = [hints.get(parameter) for parameter in signature(decider).parameters] or [None]
    model = annotations[0] if annotations else None
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        raise TypeError(f"{name}: annotate the second parameter with the command's Pydantic model")
    if len(annotations) == 1:
        return model, lambda aggregate, command, _: decider(aggregate, command)
    if annotations[1:] != [UUID]:
        raise TypeError(
            f"{name} has the parameters ({', '.join(signature(decider).parameters)}); declare "
            "(aggregate, command) or (aggregate, command, command_id: UUID)"
        )
    return model, decider
