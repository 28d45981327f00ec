"""Convert the payloads of events to the newest declared version, for every reader of events."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final
from uuid import UUID

from pydantic import ConfigDict, JsonValue, TypeAdapter
from pydantic_core import from_json, to_json
from relaybox_types.envelope import EventEnvelope

from relaybox.events._errors import EventTypeInvalid, EventUpcastFailed, EventVersionUnknown
from relaybox.events._event_type import Event, EventType
from relaybox.events._record import RecordedEvent

__all__ = ("EventTypes",)

_JSON_OBJECT: Final = TypeAdapter(
    dict[str, JsonValue], config=ConfigDict(allow_inf_nan=False, hide_input_in_errors=True)
)


class EventTypes:
    """Event types that a reader declares, to convert payloads of earlier versions to the declared versions.

    An event is returned unchanged if it has the declared version, if its type is not declared, or if its
    content was erased. An event of the declared version costs one look-up in a dictionary. Stored events are
    never changed.
    """

    def __init__(self, types: Iterable[EventType] = ()) -> None:
        """Declare *types*, for example those of several domains.

        Raises:
            EventTypeInvalid: Two different types have the same name.
        """
        self._by_name: dict[str, EventType] = {}
        for one in types:
            self.add(one)

    def __repr__(self) -> str:
        return f"<EventTypes [{len(self._by_name)} declared]>"

    def __iter__(self) -> Iterator[EventType]:
        """Iterate over the types in the order of their declaration."""
        return iter(self._by_name.values())

    def __getitem__(self, name: str) -> EventType:
        """Return the type called *name*.

        Raises:
            KeyError: The type is not declared.
        """
        return self._by_name[name]

    def add(self, declared: EventType) -> None:
        """Declare one more type; the same declaration may be repeated.

        Raises:
            EventTypeInvalid: Another type with this name is declared.
        """
        if self._by_name.setdefault(declared.name, declared) != declared:
            raise EventTypeInvalid(
                f"{declared.name} is declared twice, with different versions or upcasters; keep one"
            )

    def upcast_recorded(self, event: RecordedEvent) -> RecordedEvent:
        """Convert the payload of a recorded event to the declared version.

        Raises:
            EventVersionUnknown: The version of the event is above the declared version, or below 1.
            EventUpcastFailed: An upcaster raised an exception, or returned no JSON object.
        """
        declared = self._by_name.get(event.type)
        if declared is None or declared.version == event.event_version or event.erased:
            return event
        payload = _upcast(declared, event.event_version, event.payload, event.event_id)
        return replace(event, event_version=declared.version, payload=payload)

    def upcast_envelope(self, event: EventEnvelope) -> EventEnvelope:
        """Convert the payload of a published event to the declared version.

        Raises:
            EventVersionUnknown, EventUpcastFailed: See :meth:`upcast_recorded`.
        """
        declared = self._by_name.get(event.event_type)
        if declared is None or declared.version == event.event_version or event.erased:
            return event
        payload = _upcast(declared, event.event_version, event.payload, event.event_id)
        return event.model_copy(update={"event_version": declared.version, "payload": payload})

    def upcast_decided(self, event: Event) -> Event:
        """Convert the payload of an event that a decider returned to the declared version.

        Raises:
            EventVersionUnknown, EventUpcastFailed: See :meth:`upcast_recorded`.
        """
        declared = self._by_name.get(event.type)
        if declared is None or declared.version == event.event_version:
            return event
        payload = _upcast(declared, event.event_version, event.payload, None)
        return replace(event, event_version=declared.version, payload=payload)


def _upcast(
    declared: EventType, version: int, payload: Mapping[str, Any], event_id: UUID | None
) -> dict[str, Any]:
    if not 1 <= version <= declared.version:
        raise EventVersionUnknown(declared.name, event_id, version, known=declared.version)
    # A copy, because upcasters may change it, and the caller's event must stay as it is.
    document: dict[str, Any] = from_json(to_json(payload))
    for earlier in range(version, declared.version):
        try:
            result = declared.upcast[earlier](document)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # SystemExit too: it would end the process of each reader
            reason = f"raised {type(error).__name__}"
            raise EventUpcastFailed(declared.name, event_id, earlier, reason) from error
        try:
            # A copy again: an upcaster may return an object that other events share.
            document = from_json(to_json(_JSON_OBJECT.validate_python(result)))
        except ValueError as error:
            reason = f"returned a {type(result).__name__} that is not a JSON object"
            raise EventUpcastFailed(declared.name, event_id, earlier, reason) from error
    return document
