"""Which messages are events for us, which are for others, and which are none."""

from uuid import uuid4

import pytest
from pydantic_core import from_json, to_json
from relaybox.consumers import EnvelopeInvalid
from relaybox.consumers._message import Message, header_value, parse_event

from tests.fixtures.events import CREATED, REQUESTED, make_event

STRUCTURED = "application/cloudevents+json; charset=UTF-8"


def message(
    value: bytes | None, *, header_type: str | None = None, content_type: str | None = None
) -> Message:
    named = (("ce_type", header_type), ("content-type", content_type))
    headers = [(name, text.encode()) for name, text in named if text is not None]
    return Message(partition=("domain-events", 2), offset=17, headers=headers, value=value)


def structured(data: object, **changes: object) -> bytes:
    return to_json({"specversion": "1.0", "type": REQUESTED, "data": data, **changes})


def test_an_event_comes_out_as_it_was_put_in() -> None:
    event = make_event(REQUESTED)
    sent = message(event.model_dump_json().encode(), header_type=REQUESTED)
    assert parse_event(sent, group="g", event_types=frozenset({REQUESTED})) == event


def test_event_of_another_type_is_skipped_whatever_its_shape() -> None:
    sent = message(to_json({"event_type": CREATED, "shape": "of the future"}))
    assert parse_event(sent, group="g", event_types=frozenset({REQUESTED})) is None


@pytest.mark.parametrize(
    ("value", "header_type", "reason"),
    [
        (None, REQUESTED, "has no value"),
        (b"\xff secret", None, "is not JSON"),
        (b'["secret"]', None, "is not a JSON object"),
        (b'{"payload": "secret"}', None, "has no event_type"),
        (
            to_json({"event_type": CREATED, "payload": "secret"}),
            REQUESTED,
            "differs from the type of its CloudEvent",
        ),
        (to_json({"event_type": REQUESTED, "payload": "secret"}), None, "malformed aggregate_id"),
    ],
)
def test_invalid_message_is_named_by_offset_without_content(
    value: bytes | None, header_type: str | None, reason: str
) -> None:
    with pytest.raises(EnvelopeInvalid, match=reason) as refused:
        parse_event(message(value, header_type=header_type), group="g", event_types=frozenset({REQUESTED}))
    assert "domain-events[2]@17" in str(refused.value)
    assert "secret" not in str(refused.value)


@pytest.mark.guarantee("G30")
@pytest.mark.parametrize("content_type", [STRUCTURED, "Application/CloudEvents+JSON"])
def test_an_event_comes_out_of_structured_mode_as_it_was_put_in(content_type: str) -> None:
    event = make_event(REQUESTED)
    value = structured(event.model_dump(mode="json"))
    sent = message(value, content_type=content_type)
    assert parse_event(sent, group="g", event_types=frozenset({REQUESTED})) == event
    assert parse_event(sent, group="g", event_types=frozenset({CREATED})) is None


@pytest.mark.guarantee("G30")
@pytest.mark.parametrize(
    ("value", "content_type", "reason"),
    [
        (structured({}, type=CREATED), STRUCTURED, "differs from the type of its CloudEvent"),
        (structured({}, specversion="0.3"), STRUCTURED, "is not a CloudEvent 1.0"),
        (structured("secret"), STRUCTURED, "its data is not a JSON object"),
        (structured({}), "application/cloudevents-batch+json", "content-type is not application/cloudevents"),
        (structured({"event_type": REQUESTED}), STRUCTURED, "malformed aggregate_id"),
    ],
)
def test_invalid_structured_message_is_rejected(value: bytes, content_type: str, reason: str) -> None:
    sent = message(value, content_type=content_type)
    with pytest.raises(EnvelopeInvalid, match=reason) as refused:
        parse_event(sent, group="g", event_types=frozenset({REQUESTED}))
    assert "secret" not in str(refused.value)


def test_an_event_that_is_its_own_cause_is_refused() -> None:
    document = from_json(make_event(REQUESTED).model_dump_json())
    document["causation_id"] = document["event_id"] = str(uuid4())
    with pytest.raises(EnvelopeInvalid, match="malformed envelope"):
        parse_event(message(to_json(document)), group="g", event_types=frozenset({REQUESTED}))


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        (None, None),
        ([], None),
        ([("other", b"x")], None),
        ([("ce_type", None)], None),
        ([("ce_id", b"1"), ("ce_type", CREATED.encode())], CREATED),
    ],
)
def test_the_type_is_read_from_the_header(headers: object, found: str | None) -> None:
    assert header_value(headers, "ce_type") == found


def test_size_of_a_message_counts_the_bytes_of_header_names() -> None:
    sent = Message(partition=("domain-events", 0), offset=0, key=b"k", headers=[("größe", b"12")], value=b"v")
    assert sent.bytes == len(b"k") + len("größe".encode()) + len(b"12") + len(b"v")
