"""The bank on a real PostgreSQL and a real Kafka."""

import asyncio
from uuid import uuid4

from accounts import DEPOSITED, OPENED, RECEIVED, RETURNED, SENT
from balances import update_balance
from httpx2 import AsyncClient, Response
from relaybox.consumers import EventTransaction, subscribe
from relaybox.operations import LetterSelection, replay_letters
from relaybox.testing import make_event
from relaybox_types.envelope import EventEnvelope
from transfers import deliver


async def open_account(ann: AsyncClient, cents: int = 0) -> str:
    account = (await ann.post("/accounts", json={})).json()["id"]
    if cents:
        await send(ann, account, "DepositMoney", cents=cents)
    return account


async def send(ann: AsyncClient, account: str, command: str, key: str | None = None, **payload) -> Response:
    headers = {} if key is None else {"Idempotency-Key": key}
    body = {"command_type": command, "payload": payload}
    return await ann.post(f"/accounts/{account}/commands", json=body, headers=headers)


async def balance(ann: AsyncClient, account: str) -> int:
    return (await ann.get(f"/accounts/{account}/state")).json()["balance"]


async def test_repeated_request_transfers_once(ann: AsyncClient) -> None:
    savings, rent = await open_account(ann, 1_000), await open_account(ann)
    first = await send(ann, savings, "TransferMoney", key="may", to=rent, cents=400)
    again = await send(ann, savings, "TransferMoney", key="may", to=rent, cents=400)
    assert (again.status_code, again.json()) == (200, first.json())
    assert await balance(ann, savings) == 600


async def test_overdraft_is_refused(ann: AsyncClient) -> None:
    savings, rent = await open_account(ann, 1_000), await open_account(ann)
    refused = await send(ann, savings, "TransferMoney", to=rent, cents=1_001)
    assert (refused.status_code, refused.json()["error_code"]) == (422, "INSUFFICIENT_FUNDS")
    assert await balance(ann, savings) == 1_000


async def test_concurrent_transfers_do_not_overdraw(ann: AsyncClient) -> None:
    savings, rent = await open_account(ann, 1_000), await open_account(ann)
    transfers = [send(ann, savings, "TransferMoney", to=rent, cents=300) for _ in range(20)]
    statuses = [response.status_code for response in await asyncio.gather(*transfers)]
    assert sorted(statuses) == [200] * 3 + [422] * 17
    assert await balance(ann, savings) == 100


async def test_clients_cannot_send_internal_commands(ann: AsyncClient) -> None:
    savings = await open_account(ann)
    refused = await send(ann, savings, "ReceiveMoney", transfer_id=str(uuid4()), cents=1_000)
    assert (refused.status_code, refused.json()["error_code"]) == (422, "UNKNOWN_COMMAND")


async def test_balance_counts_each_event_once(ann: AsyncClient, run_handler) -> None:
    account = uuid4()
    deposited = make_event(DEPOSITED, {"cents": 250}, aggregate_id=account, version=2)
    await run_handler(update_balance, make_event(OPENED, {"owner": "ann"}, aggregate_id=account))
    assert await run_handler(update_balance, deposited) == "HANDLED"
    assert await run_handler(update_balance, deposited) == "ALREADY_DONE"
    assert (await ann.get("/balances")).json() == [{"account_id": str(account), "balance": 250}]


async def test_transfer_arrives_once(
    ann: AsyncClient, relaybox_relay, relaybox_consumer, assert_published
) -> None:
    savings, rent = await open_account(ann, 1_000), await open_account(ann)
    await send(ann, savings, "TransferMoney", to=rent, cents=400)
    await relaybox_relay.publish_all()
    await assert_published(SENT, key=savings, payload={"to": rent, "cents": 400})

    transfers = relaybox_consumer(deliver)
    await transfers.drain()
    transfers.rewind()  # Kafka delivers every message again
    await transfers.drain()
    assert (await balance(ann, savings), await balance(ann, rent)) == (600, 400)
    await relaybox_relay.publish_all()
    await assert_published(RECEIVED, key=rent, payload={"cents": 400}, count=1)


async def test_transfer_to_an_unknown_account_returns(
    ann: AsyncClient, relaybox_relay, relaybox_consumer, assert_published
) -> None:
    savings = await open_account(ann, 1_000)
    await send(ann, savings, "TransferMoney", to=str(uuid4()), cents=400)
    await relaybox_relay.publish_all()
    await relaybox_consumer(deliver).drain()
    assert await balance(ann, savings) == 1_000
    await relaybox_relay.publish_all()
    await assert_published(RETURNED, key=savings)


@subscribe(SENT, group="transfers")
async def deliver_and_crash(event: EventEnvelope, unit: EventTransaction) -> None:
    await deliver(event, unit)
    raise RuntimeError("crashed")


async def test_crash_in_a_transfer_neither_loses_nor_doubles_money(
    ann: AsyncClient, relaybox_database, relaybox_relay, relaybox_consumer
) -> None:
    savings, rent = await open_account(ann, 1_000), await open_account(ann)
    await send(ann, savings, "TransferMoney", to=rent, cents=400)
    await relaybox_relay.publish_all()

    crashing = relaybox_consumer(deliver_and_crash)
    await crashing.drain()
    [letter] = await crashing.letters()
    assert letter.attempts == 4
    assert (await balance(ann, savings), await balance(ann, rent)) == (600, 0)

    await replay_letters(relaybox_database, LetterSelection(ids=[letter.id]), by="ann")
    replayed, *_ = await relaybox_consumer(deliver).drain()
    assert replayed.outcome == "REPLAYED"
    assert (await balance(ann, savings), await balance(ann, rent)) == (600, 400)


async def test_list_of_balances_agrees_with_the_accounts(
    ann: AsyncClient, relaybox_relay, relaybox_consumer
) -> None:
    ids = [await open_account(ann, 1_000) for _ in range(3)]
    for source, target in ((0, 1), (1, 2), (2, 0), (0, 2)):
        await send(ann, ids[source], "TransferMoney", to=ids[target], cents=700)
    for _ in range(2):  # the events of the accounts, then those of the transfers' second step
        await relaybox_relay.publish_all()
        await relaybox_consumer(deliver).drain()
        await relaybox_consumer(update_balance).drain()
    listed = {one["account_id"]: one["balance"] for one in (await ann.get("/balances")).json()}
    assert listed == {account: await balance(ann, account) for account in ids}
    assert sum(listed.values()) == 3_000
