"""The orders example with the command of the tutorial, when the warehouse processes an order late."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from relaybox.consumers import EventTransaction
from relaybox.http import make_token
from relaybox.settings import JwtSettings, PostgresSettings, load_settings
from relaybox_types.envelope import EventEnvelope

from tests.unit.test_docs import fences

ROOT = Path(__file__).parents[2]
SECRET = "a secret of thirty-two bytes, or more"
CANCEL = {"command_type": "CancelOrder", "payload": {"reason": "changed my mind"}}
Names = dict[str, Any]


@pytest.fixture
async def shop(postgres_settings: PostgresSettings, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Names]:
    """Return the names of the example application, run on the database of the test."""
    for name in ("host", "port", "db", "user"):
        monkeypatch.setenv(f"POSTGRES_{name.upper()}", str(getattr(postgres_settings, name)))
    monkeypatch.setenv("POSTGRES_PASSWORD", postgres_settings.password.get_secret_value())
    monkeypatch.setenv("JWT_SECRET", SECRET)
    example = (ROOT / "examples/orders/app.py").read_text()
    cancelling, _ = fences(ROOT / "docs/tutorial.md", "python")
    names: Names = {"__name__": "shop"}
    exec(compile(f"{example}\n{cancelling}", "shop", "exec", dont_inherit=True), names)
    async with names["backbone"].lifespan(names["app"]):
        yield names


@pytest.fixture
async def client(shop: Names) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": f"Bearer {make_token(load_settings(JwtSettings), 'me')}"}
    transport = httpx.ASGITransport(shop["app"])
    async with httpx.AsyncClient(transport=transport, base_url="http://shop", headers=headers) as client:
        yield client


async def placed(client: httpx.AsyncClient) -> str:
    response = await client.post("/orders", json={"item": "tea", "ordered": 3})
    assert response.status_code == 201
    return response.json()["id"]


async def warehouse_reads(shop: Names) -> None:
    """Let the warehouse process the first event of the order, as it is in the outbox."""
    database = shop["backbone"].database
    async with database.connection() as connection:
        [row] = await connection.fetch(
            "SELECT payload::text AS event FROM event_outbox WHERE payload ->> 'version' = '1'"
        )
    event = EventEnvelope.model_validate_json(row["event"])
    async with database.sessions.begin() as db:
        await shop["reserve"](event, EventTransaction(db=db, event=event))


async def state(client: httpx.AsyncClient, order: str) -> tuple[int, int]:
    found = (await client.get(f"/orders/{order}/state")).json()
    return found["ordered"], found["reserved"]


async def test_order_cancelled_before_processing_reserves_nothing(
    shop: Names, client: httpx.AsyncClient
) -> None:
    order = await placed(client)
    cancelled = await client.post(f"/orders/{order}/commands", json=CANCEL)
    assert cancelled.status_code == 200
    await warehouse_reads(shop)
    assert await state(client, order) == (0, 0)


async def test_reserved_order_cannot_be_cancelled(shop: Names, client: httpx.AsyncClient) -> None:
    order = await placed(client)
    await warehouse_reads(shop)
    refused = await client.post(f"/orders/{order}/commands", json=CANCEL)
    assert (refused.status_code, refused.json()["error_code"]) == (422, "TOO_LATE")
    assert await state(client, order) == (3, 3)


async def test_repeated_key_places_one_order(client: httpx.AsyncClient) -> None:
    responses = [
        await client.post("/orders", json={"item": "tea", "ordered": 3}, headers={"Idempotency-Key": "k"})
        for _ in range(2)
    ]
    assert [one.status_code for one in responses] == [201, 201]
    assert responses[0].json()["id"] == responses[1].json()["id"]
    assert responses[1].headers["Idempotent-Replayed"] == "true"
