"""Whether a verification passed, by the numbers of its report."""

from datetime import UTC, datetime

import pytest
from relaybox.verify import Kind, Report, Tally


def report(kind: Kind, events: int) -> Report:
    """Return a report that found *events* events of *kind*, and nothing else."""
    return Report(
        topics=("t",),
        isolation="read_committed",
        snapshot_at=datetime(2026, 1, 31, tzinfo=UTC),
        elapsed_s=1.0,
        events=events,
        published=0,
        records=events,
        duplicates=0,
        tallies={each: Tally(events=events, keys=events) if each is kind else Tally() for each in Kind},
        findings=(),
    )


@pytest.mark.parametrize("kind", [Kind.LOST, Kind.REORDERED, Kind.DUPLICATED, Kind.NOT_IN_DATABASE])
def test_one_violation_fails_a_verification(kind: Kind) -> None:
    assert not report(kind, 1).holds()
    assert report(kind, 0).holds()


def test_one_event_that_postgresql_lost_leaves_the_delivery_intact() -> None:
    lost = report(Kind.NOT_IN_DATABASE, 1)
    assert lost.delivery_holds()
    assert lost.remedy is not None
    assert report(Kind.NOT_IN_DATABASE, 0).remedy is None


def test_duplicates_may_be_allowed() -> None:
    assert report(Kind.DUPLICATED, 1).holds(allow_duplicates=True)
    assert not report(Kind.LOST, 1).holds(allow_duplicates=True)
