"""Messages of the relay and of the official SDK, in both modes and in both directions (G30)."""

import re
from typing import Any
from uuid import uuid4

import pytest
from cloudevents.core.bindings import kafka
from cloudevents.core.v1.event import CloudEvent
from dateutil.parser import isoparse
from pydantic_core import from_json, to_json
from relaybox.outbox import MessageTooLarge, OutboxSettings
from relaybox.relay import EnvelopeIncomplete
from relaybox.relay._messages import Message, message_of, record_bytes, record_of, screen
from relaybox.settings import CloudEventsMode

MODES: tuple[CloudEventsMode, ...] = ("binary", "structured")
ENVELOPE = {
    "event_id": str(uuid4()),
    "event_type": "Genesis.Session.Created",
    "aggregate_id": str(uuid4()),
    "payload": {"text": "科幻 “悬疑” 🐉", "quoted": '"', "none": None},
}
ROW: dict[str, Any] = {
    "seq": 1,
    "lane": 2,
    "epoch": 3,
    "topic": "t",
    "key": ENVELOPE["aggregate_id"],
    "attempts": 0,
    "value": to_json(ENVELOPE),
    "row_id": uuid4(),
    "id": ENVELOPE["event_id"],
    "type": ENVELOPE["event_type"],
    "time": "2026-01-31T23:59:59.123456Z",
    "subject": ENVELOPE["aggregate_id"],
    "correlation_id": str(uuid4()),
    "causation_id": str(uuid4()),
    "source": "concept agent 助手",
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
}
#: Envelopes of rows that the relay may fetch.
ROWS = (
    ROW,
    ROW | {"causation_id": None, "traceparent": None, "source": None},
    ROW | {"key": "学-1", "subject": "学-1", "type": "自.由.Created", "time": "2026-01-31T23:59:59+02:00"},
)


def made(row: dict[str, Any], mode: CloudEventsMode = "binary") -> Message:
    return message_of(tuple(row.values()), mode)


def headers_of(row: dict[str, Any]) -> dict[str, str]:
    return dict(record_of(made(row))[2])


def in_kafka(message: Message) -> kafka.KafkaMessage:
    """Return the message in the type of the SDK."""
    _, value, told = record_of(message)
    headers = {name: text.encode() for name, text in told}
    assert len(headers) == len(told)
    return kafka.KafkaMessage(headers=headers, key=(message.key or "").encode(), value=value)


def the_same_event(row: dict[str, Any]) -> CloudEvent:
    """Return *row* as the official SDK would represent it."""
    attributes = {
        "id": row["id"],
        "type": row["type"],
        "source": headers_of(row)["ce_source"],
        "time": isoparse(row["time"]),
        "subject": row["subject"],
        "datacontenttype": "application/json",
        "partitionkey": row["key"],
        "correlationid": row["correlation_id"],
        "causationid": row["causation_id"],
        "traceparent": row["traceparent"],
    }
    return CloudEvent({name: one for name, one in attributes.items() if one is not None}, ENVELOPE)


@pytest.mark.guarantee("G30")
@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("mode", MODES)
def test_official_parser_reads_the_relays_message(mode: CloudEventsMode, row: dict[str, Any]) -> None:
    read = kafka.from_kafka_event(in_kafka(made(row, mode)))
    same = the_same_event(row)
    assert read.get_attributes() == same.get_attributes()
    assert read.get_data() == ENVELOPE


@pytest.mark.guarantee("G30")
@pytest.mark.parametrize("row", ROWS)
def test_binary_message_of_the_official_sdk_equals_the_relays(row: dict[str, Any]) -> None:
    theirs, ours = kafka.to_binary_event(the_same_event(row)), in_kafka(made(row))
    assert theirs.headers == ours.headers
    assert theirs.key == (ours.key or b"").decode()
    assert from_json(theirs.value) == from_json(ours.value)


@pytest.mark.guarantee("G30")
@pytest.mark.parametrize("row", ROWS)
def test_structured_message_of_the_official_sdk_equals_the_relays(row: dict[str, Any]) -> None:
    theirs, ours = kafka.to_structured_event(the_same_event(row)), in_kafka(made(row, "structured"))
    assert ours.headers == {"content-type": b"application/cloudevents+json; charset=UTF-8"}
    assert ours.headers["content-type"].startswith(theirs.headers["content-type"])
    assert from_json(theirs.value) == from_json(ours.value)


@pytest.mark.guarantee("G30")
@pytest.mark.parametrize("mode", MODES)
def test_attribute_names_are_valid_by_the_specification(mode: CloudEventsMode) -> None:
    event = kafka.from_kafka_event(in_kafka(made(ROW, mode)))
    assert all(re.fullmatch("[a-z0-9]{1,20}", name) for name in event.get_attributes())


@pytest.mark.guarantee("G30")
def test_data_of_structured_mode_is_the_envelope_byte_for_byte() -> None:
    assert b'"data":' + ROW["value"] + b"}" in record_of(made(ROW, "structured"))[1]


@pytest.mark.guarantee("G30")
@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("2026-01-31T23:59:59Z", "2026-01-31T23:59:59Z"),
        ("2026-01-31T23:59:59.5+02:00", "2026-01-31T23:59:59.5+02:00"),
        ("2026-01-31 23:59:59Z", "2026-01-31T23:59:59Z"),
        ("2026-01-31T23:59+00:00", "2026-01-31T23:59:00Z"),
        ("1700000000", "2023-11-14T22:13:20Z"),
        ("2026-13-31T23:59:59Z", None),
        ("２026-01-31T23:59:59Z", None),
        ("2026-01-31T23:59:59", None),
        ("yesterday", None),
        (None, None),
    ],
)
def test_time_attribute_is_rfc_3339_or_absent(written: str | None, told: str | None) -> None:
    assert headers_of(ROW | {"time": written}).get("ce_time") == told


@pytest.mark.guarantee("G30")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("text", ["", "a\nb", "\x85", "\ufffe", "\U0010ffff"])
def test_text_that_is_invalid_in_an_attribute_is_omitted(text: str, mode: CloudEventsMode) -> None:
    message = made(ROW | {"subject": text, "key": text, "traceparent": text}, mode)
    sent = in_kafka(message)
    event = kafka.from_kafka_event(kafka.KafkaMessage(sent.headers, None, sent.value))
    assert not {"subject", "partitionkey", "traceparent"} & event.get_attributes().keys()
    assert message.key == text


@pytest.mark.guarantee("G30")
@pytest.mark.parametrize("text", ["a\u00a0b", "\u2028", "学🐉"])
def test_other_texts_are_attributes_also_if_not_printable(text: str) -> None:
    assert headers_of(ROW | {"subject": text})["ce_subject"] == text


@pytest.mark.guarantee("G30")
@pytest.mark.parametrize(
    ("text", "is_sent"), [("", False), ("x", True), ("x" * 255, True), ("x" * 256, False), ("é", False)]
)
def test_trace_of_1_to_255_ascii_characters_is_sent(text: str, is_sent: bool) -> None:
    assert headers_of(ROW | {"traceparent": text}).get("ce_traceparent") == (text if is_sent else None)


@pytest.mark.guarantee("G30")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("changes", [{"type": "a\nb"}, {"type": ""}, {"type": None}, {"id": None}])
def test_event_that_cannot_be_a_cloud_event_is_a_row_fault(
    changes: dict[str, Any], mode: CloudEventsMode
) -> None:
    [(_, fault)] = screen([made(ROW | changes, mode)], {"t": 1_000_000}).faulty
    assert isinstance(fault, EnvelopeIncomplete)


def test_source_attribute_has_a_limited_length() -> None:
    assert len(headers_of(ROW | {"source": "🐉" * 10_000})["ce_source"]) == 1 + 255 * 12


@pytest.mark.guarantee("G34")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("key", ["k", '"' * 4_000, "🐉" * 4_000])
def test_size_in_the_outbox_includes_the_longest_attributes(mode: CloudEventsMode, key: str) -> None:
    long = "🐉" * 255
    changes = {"type": long, "subject": long, "source": long, "traceparent": "-" * 255, "key": key}
    message = made(ROW | changes, mode)
    size = record_bytes(*record_of(message))
    with pytest.raises(MessageTooLarge) as refused:
        OutboxSettings(message_bytes_max=1_024).check("domain-events", key, ROW["value"])
    counted = int(re.findall(r"takes (\d+) bytes", str(refused.value))[0])
    assert size <= counted
