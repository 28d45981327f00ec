"""Large transfers, which wait for a decision, on a real PostgreSQL and a real Kafka."""

from datetime import timedelta

import pytest
from accounts import DECIDED, SENT
from approvals import TIMEOUT, approval, ask
from httpx2 import AsyncClient
from relaybox.flows import flow_subscription, flow_workers
from test_bank import balance, open_account, send


@pytest.fixture
def work(relaybox_database, relaybox_relay, relaybox_consumer, relaybox_tasks):
    """Return a function that publishes and consumes all events, and runs the flows until they wait or end."""
    consumers = [relaybox_consumer(ask), relaybox_consumer(flow_subscription([approval]))]

    async def run() -> None:
        await relaybox_relay.publish_all()
        for consumer in consumers:
            await consumer.drain()
        await relaybox_tasks.run_due(flow_workers(relaybox_database, [approval]))
        await relaybox_relay.publish_all()

    return run


async def request_transfer(ann: AsyncClient, savings: str, rent: str) -> str:
    response = await send(ann, savings, "TransferMoney", to=rent, cents=400_000)
    return response.json()["command_id"]


async def test_large_transfer_waits_for_the_approval(ann: AsyncClient, work, assert_published) -> None:
    savings, rent = await open_account(ann, 500_000), await open_account(ann)
    transfer_id = await request_transfer(ann, savings, rent)
    await work()
    assert await balance(ann, savings) == 500_000
    assert (await send(ann, savings, "ApproveTransfer", transfer_id=transfer_id)).status_code == 200
    await work()
    await assert_published(SENT, key=savings, payload={"transfer_id": transfer_id, "to": rent})
    assert await balance(ann, savings) == 100_000


async def test_refused_transfer_takes_no_money(ann: AsyncClient, work, assert_published) -> None:
    savings, rent = await open_account(ann, 500_000), await open_account(ann)
    transfer_id = await request_transfer(ann, savings, rent)
    await send(ann, savings, "RefuseTransfer", transfer_id=transfer_id)
    late = await send(ann, savings, "ApproveTransfer", transfer_id=transfer_id)
    assert (late.status_code, late.json()["error_code"]) == (422, "TRANSFER_NOT_WAITING")
    await work()
    await assert_published(SENT, count=0)


async def test_transfer_without_a_decision_is_refused_after_three_days(
    ann: AsyncClient, work, relaybox_tasks, assert_published
) -> None:
    savings, rent = await open_account(ann, 500_000), await open_account(ann)
    transfer_id = await request_transfer(ann, savings, rent)
    await work()
    await relaybox_tasks.advance((TIMEOUT - timedelta(hours=1)).total_seconds())
    await work()
    await assert_published(DECIDED, count=0)
    await relaybox_tasks.advance(timedelta(hours=2).total_seconds())
    await work()
    await assert_published(DECIDED, key=savings, payload={"transfer_id": transfer_id, "approved": False})
    assert await balance(ann, savings) == 500_000


async def test_only_one_transfer_of_an_account_waits(ann: AsyncClient) -> None:
    savings, rent = await open_account(ann, 500_000), await open_account(ann)
    await request_transfer(ann, savings, rent)
    second = await send(ann, savings, "TransferMoney", to=rent, cents=400_000)
    assert (second.status_code, second.json()["error_code"]) == (422, "TRANSFER_WAITING")
    assert (await send(ann, savings, "TransferMoney", to=rent, cents=50_000)).status_code == 200
