"""The oldest records to which lost events are compared; tables and topics are imitated."""

from collections.abc import AsyncGenerator, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from relaybox.verify import partition_of
from relaybox.verify._records import Partition
from relaybox.verify._verify import _set_aside_expired

EARLY = datetime(2026, 1, 31, tzinfo=UTC)
LATE = EARLY + timedelta(hours=1)


class LostEvents:
    """Tables with lost events of *keys*; has the times that they are compared with."""

    def __init__(self, *keys: str) -> None:
        self.keys = keys
        self.horizons: list[tuple[str, str, datetime]] = []
        self.is_compared = False

    async def keys_with_lost_events(self) -> AsyncGenerator[list[str]]:
        for key in self.keys:
            yield [key]

    async def add_horizons(self, horizons: Iterable[tuple[str, str, datetime]]) -> None:
        self.horizons += horizons

    async def set_aside_expired(self) -> None:
        self.is_compared = True


async def compared(horizons: Mapping[Partition, datetime], *keys: str) -> LostEvents:
    """Return the tables after a comparison with the oldest records in *horizons* of two topics."""
    tables: Any = LostEvents(*keys)
    scan: Any = SimpleNamespace(topics={"a": 2, "b": 2}, horizons=lambda: horizons)
    await _set_aside_expired(tables, scan)
    return tables


@pytest.mark.guarantee("G33")
async def test_event_without_a_key_has_the_latest_time_of_its_topic() -> None:
    tables = await compared({("b", 0): LATE, ("b", 1): EARLY})
    assert tables.horizons == [("b", "", LATE)]
    assert tables.is_compared


@pytest.mark.guarantee("G33")
async def test_event_with_a_key_has_the_time_of_its_partition() -> None:
    cut = partition_of("x", 2)
    other = next(key for key in "abcdefgh" if partition_of(key, 2) != cut)
    tables = await compared({("a", cut): LATE}, "x", other)
    assert tables.horizons == [("a", "x", LATE), ("a", "", LATE)]


async def test_nothing_is_compared_if_retention_removed_no_record() -> None:
    tables = await compared({}, "x")
    assert (tables.horizons, tables.is_compared) == ([], False)
