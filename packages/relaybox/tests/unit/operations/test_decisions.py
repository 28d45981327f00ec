"""Decisions of operator commands without a server."""

import json
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from relaybox.operations import (
    Fault,
    LanesRefused,
    RelayStatus,
    Selection,
    Status,
    check_lane_count,
    published_per_s,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(("lanes", "wanted"), [(8, 8), (8, 16), (8, 1_024), (512, 1_024), (1_024, 1_024)])
def test_number_of_lanes_can_be_doubled(lanes: int, wanted: int) -> None:
    check_lane_count(lanes, wanted)


@pytest.mark.parametrize(
    ("lanes", "wanted", "message"),
    [
        (8, 4, "cannot be reduced to 4"),
        (8, 12, "8 lanes cannot become 12: .*; request one of: 16, 32, 64"),
        (8, 24, "cannot become 24"),
        (8, 2_048, "cannot become 2048: .*; request one of: .*1024$"),
        (1_024, 2_048, "no more lanes are possible$"),
    ],
)
def test_other_numbers_of_lanes_are_refused(lanes: int, wanted: int, message: str) -> None:
    with pytest.raises(LanesRefused, match=message):
        check_lane_count(lanes, wanted)


def test_selection_without_condition_selects_every_row() -> None:
    assert Selection().selects_every_row()
    conditions = [
        Selection(ids=[UUID(int=1)]),
        Selection(seqs=[1]),
        Selection(keys=[""]),
        Selection(error_classes=["LinkDown"]),
        Selection(fault=Fault.ROW),
        Selection(older_than_s=1),
    ]
    assert not any(one.selects_every_row() for one in conditions)
    assert [one.names_rows() for one in conditions] == [True, True, False, False, False, False]


def test_selection_is_recorded_with_its_conditions() -> None:
    selection = Selection(ids=[UUID(int=1)], fault=Fault.LINK, older_than_s=60)
    assert json.loads(selection.as_json()) == {
        "ids": ["00000000-0000-0000-0000-000000000001"],
        "fault": "link",
        "older_than_s": 60,
    }
    assert json.loads(Selection().as_json()) == {}


def relay(name: str, published_total: int) -> RelayStatus:
    return RelayStatus(
        name=name,
        place="",
        delivery="",
        breaker="closed",
        started_at=NOW,
        published_total=published_total,
        lease_s=3,
        lanes=4,
        troubles=(),
    )


def status_at(after_s: float, *relays: RelayStatus) -> Status:
    return Status(
        at=NOW + timedelta(seconds=after_s),
        relays=relays,
        lanes=(),
        lanes_wanted=8,
        pending=0,
        retrying=0,
        failed=0,
        skipped=0,
        oldest_pending_s=None,
    )


def test_rate_counts_old_and_new_relays() -> None:
    before = status_at(0, relay("a", 1_000), relay("gone", 5_000))
    after = status_at(2, relay("a", 1_400), relay("new", 100))
    assert published_per_s(before, after) == 250


def test_rate_without_elapsed_time_is_zero() -> None:
    assert published_per_s(status_at(0, relay("a", 0)), status_at(0, relay("a", 10))) == 0
