"""Event types: errors of a declaration, and payloads of earlier versions as readers get them."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, NoReturn
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from relaybox.events import (
    Event,
    EventType,
    EventTypeInvalid,
    EventTypes,
    EventUnreadable,
    EventUpcastFailed,
    EventVersionUnknown,
    RecordedEvent,
)

from tests.fixtures.event_publishing import new_event

NAME = "Suite.Account.Opened"
Json = dict[str, Any]


def same(payload: Json) -> Json:
    return payload


def with_currency(payload: Json) -> Json:
    return {**payload, "currency": "EUR"}


def with_holder(payload: Json) -> Json:
    payload["holder"] = {"name": payload.pop("name")}
    return payload


async def later(payload: Json) -> Json:
    return payload


OPENED = EventType(NAME, 3, {1: with_currency, 2: with_holder})
TYPES = EventTypes([OPENED])


def recorded(payload: Json, event_version: int = 1, type_: str = NAME) -> RecordedEvent:
    return RecordedEvent(
        event_id=uuid4(),
        correlation_id=None,
        causation_id=None,
        type=type_,
        event_version=event_version,
        aggregate_type="ACCOUNT",
        aggregate_id="a",
        version=1,
        payload=payload,
        metadata={},
        created_at=datetime.now(UTC),
    )


@pytest.mark.parametrize(
    ("version", "upcast", "why"),
    [
        (0, {}, "has version 0; versions begin at 1"),
        (-1, {}, "has version -1; versions begin at 1"),
        (2, {}, "no function for version 1; add one that turns a payload of version 1 into one of version 2"),
        (4, {1: same, 3: same}, "no function for version 2"),
        (3, {2: same}, "no function for version 1"),
        (1, {1: same}, "has a function for version 1"),
        (2, {1: same, 2: same}, "has a function for version 2"),
        (2, {0: same, 1: same}, "has a function for version 0"),
        (2, {1: later}, "that cannot be called for version 1; give a function declared with def"),
        (2, {1: {}}, "that cannot be called for version 1; give a function declared with def"),
    ],
)
def test_declaration_with_wrong_upcasters_is_refused(version: int, upcast: Any, why: str) -> None:
    with pytest.raises(EventTypeInvalid, match=why) as refused:
        EventType(NAME, version, upcast)
    assert refused.value.error_code == "EVENT_TYPE_INVALID"
    assert NAME in str(refused.value)


def test_declared_upcasters_cannot_be_changed_later() -> None:
    given_upcasters = {1: same}
    declared = EventType(NAME, 2, given_upcasters)
    given_upcasters.clear()
    assert declared.upcast == {1: same}
    assert isinstance(declared.upcast, MappingProxyType)


def test_name_with_two_declarations_is_refused_unless_they_are_equal() -> None:
    types = EventTypes([EventType(NAME, 2, {1: same}), EventType(NAME, 2, {1: same}), EventType("Other")])
    assert [one.name for one in types] == [NAME, "Other"]
    assert types[NAME].version == 2
    assert repr(types) == "<EventTypes [2 declared]>"
    for other in (EventType(NAME), EventType(NAME, 2, {1: with_holder})):
        with pytest.raises(EventTypeInvalid, match="declared twice"):
            types.add(other)
    assert types[NAME].version == 2


@pytest.mark.parametrize(
    ("version", "payload"),
    [
        (1, {"name": "Ada"}),
        (2, {"name": "Ada", "currency": "EUR"}),
        (3, {"holder": {"name": "Ada"}, "currency": "EUR"}),
    ],
)
def test_events_of_all_versions_get_the_same_shape(version: int, payload: Json) -> None:
    newest = {"holder": {"name": "Ada"}, "currency": "EUR"}
    event = recorded(payload, version)
    read = TYPES.upcast_recorded(event)
    assert (read.payload, read.event_version, read.event_id) == (newest, 3, event.event_id)
    published = new_event(event_type=NAME, event_version=version, payload=payload)
    consumed = TYPES.upcast_envelope(published)
    assert consumed == published.model_copy(update={"event_version": 3, "payload": newest})
    decided = TYPES.upcast_decided(Event(type=NAME, event_version=version, payload=payload))
    assert decided == Event(type=NAME, event_version=3, payload=newest)


def test_event_of_the_newest_version_or_undeclared_type_is_the_same_object() -> None:
    newest, undeclared = recorded({"a": 1}, 3), recorded({"a": 1}, 7, "Suite.Other.Opened")
    assert TYPES.upcast_recorded(newest) is newest
    assert TYPES.upcast_recorded(undeclared) is undeclared
    envelope = new_event(event_version=9)
    assert TYPES.upcast_envelope(envelope) is envelope


def test_erased_event_is_returned_unchanged() -> None:
    event = recorded({"erased": True}, 1)
    assert TYPES.upcast_recorded(event) is event
    published = new_event(event_type=NAME, event_version=9, payload={"erased": True})
    assert TYPES.upcast_envelope(published) is published


def test_upcaster_can_change_neither_its_input_nor_a_shared_result() -> None:
    shared: Json = {"lists": [[]]}

    def spoil(payload: Json) -> Json:
        payload["lists"].append("spoilt")
        payload["nested"]["deep"].clear()
        return shared

    types = EventTypes([EventType(NAME, 2, {1: spoil})])
    payload = {"lists": [1], "nested": {"deep": [1, 2]}}
    before = deepcopy(payload)
    first = types.upcast_recorded(recorded(payload))
    first.payload["lists"][0].append("changed by a reader")
    assert payload == before
    assert shared == {"lists": [[]]}
    assert types.upcast_recorded(recorded(payload)).payload == {"lists": [[]]}


@pytest.mark.parametrize("version", [4, 2**31 - 1, 0])
def test_version_that_is_not_declared_is_an_error_without_payload(version: int) -> None:
    event = recorded({"name": "secret"}, version)
    with pytest.raises(EventVersionUnknown) as refused:
        TYPES.upcast_recorded(event)
    error = refused.value
    assert isinstance(error, EventUnreadable)
    assert error.error_code == "EVENT_VERSION_UNKNOWN"
    assert (error.event_type, error.event_id, error.version, error.known) == (
        NAME,
        event.event_id,
        version,
        3,
    )
    assert str(error) == (
        f"event {event.event_id} of type {NAME} has version {version}, but this release knows "
        f"versions 1 to 3; run a release that declares version {version}"
    )


def raises(_payload: Json) -> NoReturn:
    raise KeyError("secret")


def exits(_payload: Json) -> NoReturn:
    raise SystemExit("secret")


def returning(result: object) -> Callable[[Json], Any]:
    return lambda _payload: result


NESTED: Json = {}
for _ in range(2_000):
    NESTED = {"a": NESTED}


@pytest.mark.parametrize(
    ("upcaster", "reason"),
    [
        (raises, "raised KeyError"),
        (exits, "raised SystemExit"),
        (returning(None), "returned a NoneType that is not a JSON object"),
        (returning(["secret"]), "returned a list that is not"),
        (returning({1: "secret"}), "returned a dict that is not"),
        (returning({"at": datetime.now(UTC)}), "returned a dict that is not"),
        (returning({"at": float("nan")}), "returned a dict that is not"),
        (returning({"at": "secret \ud800"}), "returned a dict that is not"),
        (returning({"at": {"secret"}}), "returned a dict that is not"),
        (returning(NESTED), "returned a dict that is not"),
    ],
)
def test_failed_upcaster_is_an_error_without_payload(upcaster: Callable[[Json], Any], reason: str) -> None:
    types = EventTypes([EventType(NAME, 3, {1: same, 2: upcaster})])
    event = recorded({"name": "secret"}, 1)
    with pytest.raises(EventUpcastFailed, match=reason) as failed:
        types.upcast_recorded(event)
    assert failed.value.error_code == "EVENT_UPCAST_FAILED"
    assert (failed.value.event_id, failed.value.version) == (event.event_id, 2)
    for text in (str(event.event_id), NAME, "from version 2 to 3"):
        assert text in str(failed.value)
    assert "secret" not in str(failed.value)
    if failed.value.__cause__ is not None and not reason.startswith("raised"):
        assert "secret" not in str(failed.value.__cause__)


def test_decided_event_that_cannot_be_upcast_is_named_without_id() -> None:
    with pytest.raises(EventVersionUnknown, match=r"event \(not recorded\) of type"):
        TYPES.upcast_decided(Event(type=NAME, event_version=4, payload={}))


json_values = (
    st.none()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text("ab中", max_size=3)
    | st.lists(st.integers(), max_size=2)
    | st.dictionaries(st.sampled_from("xyz"), st.integers(), max_size=2)
)
payloads = st.dictionaries(st.sampled_from("xyz"), json_values, max_size=3)
#: A step sets a field, removes one, or nests the whole payload.
steps = st.tuples(st.sampled_from("xyz"), json_values) | st.sampled_from("xyz") | st.none()


def step(change: tuple[str, Any] | str | None) -> Callable[[Json], Mapping[str, Any]]:
    def apply(payload: Json) -> Mapping[str, Any]:
        match change:
            case None:
                return MappingProxyType({"before": payload})
            case str():
                payload.pop(change, None)
                return payload
            case (name, value):
                return {**payload, name: value}

    return apply


@settings(deadline=None)
@given(earlier=st.lists(steps, max_size=3), later=st.lists(steps, max_size=4), payload=payloads)
def test_chain_of_upcasters_equals_single_steps(earlier: list[Any], later: list[Any], payload: Json) -> None:
    functions = [step(change) for change in earlier + later]
    begin, newest = len(earlier) + 1, len(functions) + 1
    before = deepcopy(payload)
    types = EventTypes([EventType(NAME, newest, dict(enumerate(functions, start=1)))])
    read = types.upcast_recorded(recorded(payload, begin))

    stepwise = recorded(payload, begin)
    for version in range(begin, newest):
        one_step = EventType(NAME, version + 1, dict(enumerate(functions[:version], start=1)))
        stepwise = EventTypes([one_step]).upcast_recorded(stepwise)
    expected: Any = deepcopy(payload)
    for function in functions[begin - 1 :]:
        expected = dict(function(deepcopy(expected)))
    assert (read.event_version, stepwise.event_version) == (newest, newest)
    assert read.payload == stepwise.payload == expected
    assert payload == before
