"""When the relay queries the database for the low watermark; the database is imitated."""

from typing import Any

import pytest
from relaybox.relay import _postgres
from relaybox.relay._postgres import LowWatermark

#: The imitated database does not use it.
CONNECTION: Any = None


class Outbox:
    """An outbox without writers; *first* is its first unsettled row."""

    def __init__(self) -> None:
        self.first: int | None = None
        self.queries = 0

    async def fetch_rows(self, _connection: None, query: str, *_: Any) -> list[dict[str, Any]]:
        self.queries += 1
        return [] if query == _postgres._SQL["list_writers"] else [{"seq": self.first}]


@pytest.fixture
def outbox(monkeypatch: pytest.MonkeyPatch) -> Outbox:
    outbox = Outbox()
    monkeypatch.setattr(_postgres, "fetch_rows", outbox.fetch_rows)
    monkeypatch.setattr(_postgres, "_ADVANCE_S", 0.0)
    return outbox


async def test_watermark_is_not_queried_until_a_later_row_is_fetched(outbox: Outbox) -> None:
    low_watermark = LowWatermark()
    await low_watermark.advance(CONNECTION, 7)
    queries = outbox.queries
    await low_watermark.advance(CONNECTION, 7)
    assert outbox.queries == queries
    await low_watermark.advance(CONNECTION, 8)
    assert outbox.queries > queries


@pytest.mark.guarantee("G22")
async def test_watermark_rises_to_the_first_unsettled_row_and_never_falls(outbox: Outbox) -> None:
    low_watermark = LowWatermark()
    seqs: list[int] = []
    for fetched_seq, outbox.first in ((7, None), (8, 5), (9, 4), (10, None)):
        await low_watermark.advance(CONNECTION, fetched_seq)
        seqs.append(low_watermark.seq)
    assert seqs == [1, 5, 5, 10]
