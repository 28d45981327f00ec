"""Events in chunks of one statement each, in the order of their versions."""

import pytest
from relaybox.commands import VersionGap
from relaybox.commands import _append_events as recording

from tests.fixtures.event_publishing import new_event


def versions(*pairs: tuple[str, int]) -> None:
    recording.check_versions([new_event(aggregate_id=one, version=version) for one, version in pairs])


def test_versions_of_several_aggregates_may_alternate() -> None:
    versions(("a", 4), ("b", 1), ("a", 5), ("b", 2))


@pytest.mark.parametrize("pairs", [(("a", 4), ("a", 6)), (("a", 4), ("a", 4)), (("a", 4), ("a", 3))])
def test_version_gap_within_the_events_is_refused_before_the_database(pairs) -> None:
    text = f"version {pairs[-1][1]} of COUNTER 'a' does not follow the version before it; lock the aggregate"
    with pytest.raises(VersionGap, match=text):
        versions(*pairs)


def test_same_ids_of_different_types_are_different_aggregates() -> None:
    recording.check_versions([new_event(version=4), new_event(version=1, aggregate_type="OTHER")])


def rows(count: int, characters: int) -> list:
    return [(new_event(version=n + 1), "domain-events", "x" * characters) for n in range(count)]


@pytest.mark.parametrize(
    ("count", "characters", "sizes"),
    [
        (0, 0, [0]),
        (1_000, 10, [1_000]),
        (2_001, 10, [1_000, 1_000, 1]),
        (8, 1_000_000, [4, 4]),
        (2, 5_000_000, [1, 1]),
    ],
)
def test_chunk_has_at_least_one_event_and_at_most_1000_or_4_mb(
    count: int, characters: int, sizes: list[int]
) -> None:
    given = rows(count, characters)
    chunks = list(recording.chunks_of(given))
    assert [len(chunk) for chunk in chunks] == sizes
    assert [row for chunk in chunks for row in chunk] == given
