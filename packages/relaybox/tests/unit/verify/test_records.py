"""Parsing of records."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from relaybox.verify._records import TopicRecord, record_of


class Message:
    """A message of the Kafka client."""

    def __init__(self, headers: Any, key: bytes | None = b"a", value: bytes | None = b"{}") -> None:
        self.headers = lambda: headers
        self.key = lambda: key
        self.value = lambda: value
        self.topic, self.partition, self.offset = lambda: "t", lambda: 3, lambda: 7


def test_event_id_is_read_from_the_header() -> None:
    record = record_of(
        Message([("ce_type", b"A"), ("ce_id", b"x"), ("content-type", b"application/cloudevents+json")])
    )
    assert record == TopicRecord("t", 3, 7, "x", "a")


@pytest.mark.parametrize(
    "content_type", [b"application/cloudevents+json", b"application/cloudevents+json; v=1"]
)
def test_event_id_in_structured_mode_is_read_from_the_value(content_type: bytes) -> None:
    headers = [("content-type", content_type)]
    assert record_of(Message(headers, value=b'{"id": "x", "data": {"id": "y"}}')).event_id == "x"


@pytest.mark.parametrize(
    ("headers", "value"),
    [
        (None, b'{"id": "x"}'),
        ([], None),
        ([("ce_id", None)], b"{}"),
        ([("content-type", b"application/json")], b'{"id": "x"}'),
        ([("content-type", None)], b'{"id": "x"}'),
        ([("content-type", b"application/cloudevents+json")], b"no json"),
        ([("content-type", b"application/cloudevents+json")], None),
        ([("content-type", b"application/cloudevents+json")], b"[1]"),
        ([("content-type", b"application/cloudevents+json")], b'{"id": 1}'),
        ([("content-type", b"application/cloudevents+json")], b"{}"),
    ],
)
def test_record_that_is_not_an_event_has_no_id(headers: Any, value: bytes | None) -> None:
    assert record_of(Message(headers, value=value)).event_id is None


def test_only_characters_unknown_to_postgresql_are_replaced() -> None:
    record = record_of(Message([("ce_id", b"\xff\0")], key="学\0".encode()))
    assert (record.event_id, record.key) == ("\ufffd\ufffd", "学\ufffd")
    assert record_of(Message([], key=None)).key is None
    assert record_of(Message([], key=b"")).key == ""


OWN = frozenset({"/shop"})
AT = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize("time", ["2026-01-31T12:00:00Z", "2026-01-31T13:00:00.000000000+01:00"])
@pytest.mark.parametrize("mode", ["binary", "structured"])
def test_event_of_an_own_source_has_its_time(mode: str, time: str) -> None:
    headers, value = event_in(mode, source="/shop", time=time)
    assert record_of(Message(headers, value=value), OWN).own_event_at == AT
    assert record_of(Message(headers, value=value)).own_event_at is None


@pytest.mark.parametrize(
    ("source", "time"),
    [
        ("/another", "2026-01-31T12:00:00Z"),
        (None, "2026-01-31T12:00:00Z"),
        ("/shop", None),
        ("/shop", "yesterday"),
        ("/shop", "2026-01-31T12:00:00"),
    ],
)
@pytest.mark.parametrize("mode", ["binary", "structured"])
def test_event_without_own_source_or_time_has_no_time(
    mode: str, source: str | None, time: str | None
) -> None:
    headers, value = event_in(mode, source=source, time=time)
    assert record_of(Message(headers, value=value), OWN).own_event_at is None


@pytest.mark.parametrize("value", [None, b"[1]", b"no json", b'{"source": ["/shop"], "time": 1}'])
def test_malformed_structured_event_has_no_time(value: bytes | None) -> None:
    message = Message([("content-type", b"application/cloudevents+json")], value=value)
    assert record_of(message, OWN).own_event_at is None


def event_in(mode: str, **attributes: str | None) -> tuple[list[tuple[str, bytes | None]], bytes]:
    """Return headers and value of an event in binary or structured mode."""
    if mode == "structured":
        return [("content-type", b"application/cloudevents+json")], json.dumps(attributes).encode()
    return [(f"ce_{name}", text and text.encode()) for name, text in attributes.items()], b"{}"
