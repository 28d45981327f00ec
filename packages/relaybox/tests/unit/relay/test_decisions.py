"""Decisions of a relay that need no server."""

from typing import Any
from uuid import UUID

import pytest
from confluent_kafka import KafkaError
from relaybox.relay import (
    EnvelopeIncomplete,
    GiveUp,
    RecordTooLarge,
    Retry,
    RowFault,
    TopicNameTooLong,
    TopicUnknown,
    next_step,
)
from relaybox.relay._at_least_once import acknowledged_in_order
from relaybox.relay._batches import next_batch_rows
from relaybox.relay._errors import link_pause_s
from relaybox.relay._lanes import fair_share, surplus_of
from relaybox.relay._messages import Message, message_of, record_bytes, record_of, screen
from relaybox.relay._postgres import multirange_of
from relaybox.settings import CloudEventsMode

LIMITS = {"t": 1_000}
REFUSED = KafkaError(KafkaError.MSG_SIZE_TOO_LARGE)
ROW = {
    "seq": 1,
    "lane": 2,
    "epoch": 3,
    "topic": "t",
    "key": "a",
    "attempts": 0,
    "value": b"{}",
    "row_id": UUID(int=1),
    "id": "e1",
    "type": "Genesis.Session.Created",
    "time": "2026-01-01T00:00:00Z",
    "subject": "a",
    "correlation_id": "c1",
    "causation_id": "e0",
    "source": "api-gateway",
    "traceparent": "00-1-2-01",
}


def made(row: dict[str, Any], mode: CloudEventsMode = "binary") -> Message:
    return message_of(tuple(row.values()), mode)


def headers_of(row: dict[str, Any]) -> list[tuple[str, str]]:
    return record_of(made(row))[2]


def message(seq: int, key: str | None = "a", *, topic: str = "t", size: int = 10) -> Message:
    return made(ROW | {"seq": seq, "key": key, "topic": topic, "value": b"x" * size})


def seqs(messages: list[Message]) -> list[int]:
    return [each.seq for each in messages]


@pytest.mark.guarantee("G24")
def test_row_is_retried_after_1_2_4_s_and_then_failed() -> None:
    assert [next_step(attempts) for attempts in range(1, 6)] == [
        Retry(after_s=1.0),
        Retry(after_s=2.0),
        Retry(after_s=4.0),
        GiveUp(),
        GiveUp(),
    ]


def test_pause_after_a_lost_link_grows_up_to_a_bound() -> None:
    pauses = [link_pause_s(failures) for failures in (1, 2, 3, 5, 6, 10_000)]
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (0.1, 2.0)


@pytest.mark.parametrize(
    ("limit", "fetched", "batch_size", "expected"),
    [
        (100, 100, 100, 200),
        (5_000, 5_000, 100, 5_000),
        (2_000, 1_999, 100, 100),
        (4_000, 4_000, 1_000, 5_000),
        (10_000, 10_000, 10_000, 10_000),
        (1, 1, 1, 2),
    ],
)
def test_batches_grow_while_there_is_a_backlog(
    limit: int, fetched: int, batch_size: int, expected: int
) -> None:
    assert next_batch_rows(limit, fetched, batch_size) == expected


@pytest.mark.guarantee("G26")
@pytest.mark.parametrize("lanes", [1, 8, 13])
@pytest.mark.parametrize("relays", [1, 2, 3, 8, 20])
def test_fair_shares_cover_every_lane(lanes: int, relays: int) -> None:
    assert fair_share(lanes, relays) * relays >= lanes
    assert (fair_share(lanes, relays) - 1) * relays < lanes


@pytest.mark.guarantee("G26")
def test_only_lanes_above_the_share_are_released() -> None:
    assert surplus_of([5, 1, 3], 2) == {5}
    assert surplus_of([1, 3], 2) == frozenset()


@pytest.mark.guarantee("G30")
def test_headers_without_a_value_are_omitted() -> None:
    bare = headers_of(ROW | {"causation_id": None, "traceparent": None, "key": None, "source": None})
    names = [name for name, _ in bare]
    assert not {"ce_causationid", "ce_traceparent", "ce_partitionkey"} & set(names)
    assert ("ce_source", "/relaybox") in bare
    full = dict(headers_of(ROW))
    assert (full["ce_causationid"], full["ce_traceparent"]) == ("e0", "00-1-2-01")


@pytest.mark.guarantee("G30")
def test_source_is_a_uri_reference_for_any_service_name() -> None:
    assert ("ce_source", "/my%20service") in headers_of(ROW | {"source": "my service"})


@pytest.mark.guarantee("G34")
def test_rows_behind_a_faulty_row_of_their_key_are_withheld() -> None:
    batch = [message(1), message(2, size=2_000), message(3), message(4, "b"), message(5, topic="none")]
    screened = screen(batch, LIMITS)
    assert seqs(screened.publishable) == [1, 4]
    assert [(each.seq, type(fault)) for each, fault in screened.faulty] == [(2, RecordTooLarge)]


@pytest.mark.guarantee("G34")
def test_rows_without_a_key_do_not_wait_for_a_faulty_row() -> None:
    screened = screen([message(1, None, topic="none"), message(2, None)], LIMITS)
    assert seqs(screened.publishable) == [2]
    assert isinstance(screened.faulty[0][1], TopicUnknown)


@pytest.mark.guarantee("G24")
@pytest.mark.parametrize(("chars", "expected"), [(249, TopicUnknown), (250, TopicNameTooLong)])
def test_topic_name_over_249_characters_has_its_own_fault(chars: int, expected: type[RowFault]) -> None:
    [(_, fault)] = screen([message(1, topic="t" * chars)], LIMITS).faulty
    assert type(fault) is expected


def test_payload_that_cannot_be_a_cloud_event_is_a_row_fault() -> None:
    screened = screen([made(ROW | {"id": None})], LIMITS)
    assert isinstance(screened.faulty[0][1], EnvelopeIncomplete)


RAW = {
    "type": None,
    "value": b'{"record": {"key": "/w==", "value": null, "headers": [["a", "/wA="], ["b", null]]}}',
}


def test_record_as_bytes_is_published_as_it_is() -> None:
    raw = made(ROW | RAW, "structured")
    assert record_of(raw) == (b"\xff", None, [("a", b"\xff\x00"), ("b", None)])
    size = record_bytes(*record_of(raw))
    assert screen([raw], {"t": size}).publishable == [raw]
    assert isinstance(screen([raw], {"t": size - 1}).faulty[0][1], RecordTooLarge)


@pytest.mark.parametrize(
    "changes",
    [{"value": b'{"record": {"key": "no base64", "value": null, "headers": []}}'}, {"type": "T", "id": None}],
)
def test_malformed_record_is_a_row_fault(changes: dict[str, Any]) -> None:
    screened = screen([made(ROW | RAW | changes)], LIMITS)
    assert isinstance(screened.faulty[0][1], EnvelopeIncomplete)


@pytest.mark.guarantee("G34")
@pytest.mark.parametrize("mode", ["binary", "structured"])
def test_record_of_exactly_the_limit_is_publishable(mode: CloudEventsMode) -> None:
    large = made(ROW | {"value": b"x" * 600}, mode)
    size = record_bytes(*record_of(large))
    assert screen([large], {"t": size}).faulty == []
    assert isinstance(screen([large], {"t": size - 1}).faulty[0][1], RecordTooLarge)


@pytest.mark.guarantee("G21")
def test_row_acknowledged_before_its_predecessor_is_not_sent() -> None:
    batch = [message(1), message(2), message(3), message(4, "b"), message(5, None), message(6, None)]
    results = [None, REFUSED, None, None, REFUSED, None]
    assert seqs(acknowledged_in_order(batch, results)) == [1, 4, 6]


def test_row_numbers_are_written_as_ranges() -> None:
    assert multirange_of([]) == "{}"
    assert multirange_of([5, 1, 2, 3, 9]) == "{[1,3],[5,5],[9,9]}"
