"""The API's responses while PostgreSQL accepts no writes."""

import httpx2 as httpx
import pytest
from relaybox.local import LocalPostgres

from tests.fixtures.outages import read_only
from tests.fixtures.shop import Shop


@pytest.mark.guarantee("G35")
@pytest.mark.parametrize("headers", [{"Idempotency-Key": "k"}, None], ids=["keyed", "without a key"])
async def test_write_on_a_read_only_server_is_503_with_retry_after(
    shop: Shop, ann: httpx.AsyncClient, postgres_server: LocalPostgres, headers: dict[str, str] | None
) -> None:
    async with read_only(postgres_server):
        refused = await ann.post("/orders", json={"article": "tea"}, headers=headers)
    assert (refused.status_code, refused.headers.get("retry-after")) == (503, "5")
    assert refused.json()["error_code"] == "DATABASE_UNAVAILABLE"
    assert (await ann.post("/orders", json={"article": "tea"}, headers=headers)).status_code == 201
