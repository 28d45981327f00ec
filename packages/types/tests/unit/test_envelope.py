"""The envelope: required fields, defaults and refused values."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic import ValidationError
from relaybox_types.envelope import EventEnvelope, build_event_envelope


def built(**changes: Any) -> EventEnvelope:
    fields: dict[str, Any] = {
        "event_type": "Suite.Counter.Created",
        "aggregate_type": "COUNTER",
        "aggregate_id": "c-1",
        "version": 1,
        "correlation_id": uuid4(),
    }
    return build_event_envelope(**fields | changes)


def test_ids_time_and_target_have_defaults() -> None:
    before = datetime.now(UTC)
    one, other = built(), built()

    assert one.event_id != other.event_id
    assert before <= one.timestamp <= datetime.now(UTC)
    assert (one.target_id, one.target_type) == ("c-1", "OTHER")
    assert (one.event_version, one.causation_id, one.payload, one.metadata) == (1, None, {}, {})


def test_given_fields_are_kept() -> None:
    given: dict[str, Any] = {
        "event_id": uuid4(),
        "causation_id": uuid4(),
        "timestamp": datetime(2026, 1, 2, 3, 4, tzinfo=timezone(timedelta(hours=8))),
        "target_id": "t-1",
        "target_type": "NODE",
        "actor_id": "ada",
        "event_version": 3,
        "payload": {"题": "科幻"},
        "metadata": {"request_id": "r"},
    }
    envelope = built(**given)
    assert {name: getattr(envelope, name) for name in given} == given


def test_json_round_trip_keeps_the_envelope() -> None:
    envelope = built(payload={"theme": "悬疑", "n": 1.5}, causation_id=uuid4())
    assert EventEnvelope.model_validate_json(envelope.model_dump_json()) == envelope


def test_envelope_has_exactly_the_contracts_fields() -> None:
    assert set(EventEnvelope.model_fields) == {
        *("event_id", "event_type", "event_version", "aggregate_type", "aggregate_id"),
        *("correlation_id", "causation_id", "actor_id", "target_id", "target_type"),
        *("timestamp", "version", "payload", "metadata"),
    }


def test_causation_id_is_required_but_may_be_null() -> None:
    document = built().model_dump(mode="json")
    assert EventEnvelope.model_validate(document).causation_id is None
    del document["causation_id"]
    with pytest.raises(ValidationError, match="causation_id"):
        EventEnvelope.model_validate(document)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("event_type", ""),
        ("event_type", "x" * 256),
        ("aggregate_type", ""),
        ("aggregate_id", ""),
        ("target_type", ""),
        ("version", 0),
        ("event_version", 0),
        ("timestamp", datetime(2026, 1, 1)),  # noqa: DTZ001 - the test needs a time without a zone
        ("correlation_id", "not-a-uuid"),
    ],
)
def test_error_names_a_field_outside_its_limits(field: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=field):
        built(**{field: value})


@pytest.mark.guarantee("G08")
def test_event_cannot_be_its_own_cause() -> None:
    same = UUID(int=7)
    with pytest.raises(ValidationError, match="its own cause"):
        built(event_id=same, causation_id=same)


def test_envelope_is_immutable() -> None:
    envelope = built()
    with pytest.raises(ValidationError, match="frozen"):
        envelope.version = 2
