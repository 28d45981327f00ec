"""Effect and record are atomic: disconnecting clients, kills at COMMIT, COMMITs without response."""

import asyncio
import os
import signal
from uuid import uuid4

import asyncpg
import httpx2 as httpx
import pytest
from relaybox.settings import PostgresSettings

from tests.faults.chaos._proxy import Direction, Proxy
from tests.fixtures.gates import ClosedGate, Gate, closed_gate
from tests.fixtures.idempotent_api import EVERYTHING, NOTHING, IdempotentApi, order_request

AT_WORK = Gate("INSERT", "orders")
AT_COMMIT = Gate("INSERT", "orders", at_commit=True)
OF_MARK = """
    SELECT xmin::text FROM orders WHERE mark = $1
    UNION ALL SELECT xmin::text FROM event_outbox WHERE payload -> 'payload' ->> 'mark' = $1
    UNION ALL SELECT xmin::text FROM idempotency_cache
    UNION ALL SELECT xmin::text FROM idempotency_bodies
"""


@pytest.mark.guarantee("G63")
async def test_effect_event_claim_and_response_share_one_transaction(
    api: IdempotentApi, superuser: asyncpg.Connection
) -> None:
    mark = uuid4().hex
    await api.start()
    async with api.client() as client:
        answer = await client.post("/orders", **order_request(mark))
    assert answer.status_code == 201, answer.text
    transactions = [row["xmin"] for row in await superuser.fetch(OF_MARK, mark)]
    assert len(transactions) == 4
    assert len(set(transactions)) == 1


@pytest.mark.guarantee("G63")
@pytest.mark.parametrize("done", [False, True], ids=["undone", "done"])
async def test_response_bytes_leave_after_the_commit_has_returned(
    api: IdempotentApi, superuser: asyncpg.Connection, done: bool
) -> None:
    """The process is killed during its COMMIT: bytes sent earlier would arrive at the client."""
    mark = uuid4().hex
    process = await api.start()
    async with api.client() as client:
        async with closed_gate(superuser, AT_COMMIT) as gate:
            sending = asyncio.create_task(client.post("/orders", **order_request(mark)))
            backend = await gate.wait_until_reached()
            if done:
                os.kill(process, signal.SIGSTOP)
                await api.wait_until_stopped(process)
                await gate.open()
                await gate.wait_until_passed(backend)
            await api.kill(process)
            with pytest.raises(httpx.TransportError):
                await sending
        await api.start()
        await check_retry(api, client, mark, committed=done)


@pytest.mark.guarantee("G64")
@pytest.mark.parametrize("gives_up", ["never", "once", "again and again"])
@pytest.mark.parametrize("gate", [AT_WORK, AT_COMMIT], ids=["at work", "at commit"])
async def test_client_disconnect_keeps_effect_and_record_together(
    api: IdempotentApi, superuser: asyncpg.Connection, gate: Gate, gives_up: str
) -> None:
    """The server continues or cancels the request; a COMMIT in progress is not undone.

    The retry comes to the same process, which has one connection: it must have got it back.
    """
    mark = uuid4().hex
    giving_up = {} if gives_up == "never" else {"CANCEL_DISCONNECTED": gives_up}
    await api.start(POSTGRES_POOL_SIZE="1", **giving_up)
    async with api.client() as client:
        async with closed_gate(superuser, gate) as held:
            await leave(client, mark, held)
            if gives_up != "never":
                await api.wait_for_cancellation()
                assert (
                    await client.get("/healthz")
                ).status_code == 200  # the server has cancelled the request
        await api.wait_until_idle()
        committed = gives_up == "never" or gate.at_commit
        await check_retry(api, client, mark, committed=committed)


@pytest.mark.guarantee("G05")
async def test_retry_executes_a_request_that_never_committed(
    api: IdempotentApi, superuser: asyncpg.Connection
) -> None:
    """PostgreSQL ends the connection during COMMIT."""
    mark = uuid4().hex
    await api.start()
    async with api.client() as client:
        async with closed_gate(superuser, AT_COMMIT) as gate:
            sending = asyncio.create_task(client.post("/orders", **order_request(mark)))
            await gate.terminate(await gate.wait_until_reached())
            unknown(await sending)
        await check_retry(api, client, mark, committed=False)


@pytest.mark.guarantee("G05")
async def test_commit_with_lost_response_is_replayed_from_its_row(
    api: IdempotentApi, superuser: asyncpg.Connection, postgres_settings: PostgresSettings
) -> None:
    """The connection breaks after COMMIT took effect and before its response arrived."""
    mark = uuid4().hex
    proxy = Proxy(postgres_settings.port)
    await proxy.start()
    await api.start(POSTGRES_PORT=str(proxy.port))
    async with api.client() as client:
        async with closed_gate(superuser, AT_COMMIT) as gate:
            sending = asyncio.create_task(client.post("/orders", **order_request(mark)))
            backend = await gate.wait_until_reached()
            proxy.drop(Direction.RESPONSES)
            await gate.open()
            await gate.wait_until_passed(backend)
            proxy.cut(1.0)
            unknown(await sending)
        proxy.drop()
        await check_retry(api, client, mark, committed=True)
    await api.kill_all()
    await proxy.close()


async def leave(client: httpx.AsyncClient, mark: str, gate: ClosedGate) -> None:
    """Send the request and close the connection once it is at the gate."""
    sending = asyncio.create_task(client.post("/orders", **order_request(mark)))
    await gate.wait_until_reached()
    sending.cancel()
    await asyncio.wait([sending])


def unknown(answer: httpx.Response) -> None:
    assert (answer.status_code, answer.json()["error_code"]) == (503, "DATABASE_UNAVAILABLE"), answer.text
    assert "retry-after" in answer.headers


async def check_retry(api: IdempotentApi, client: httpx.AsyncClient, mark: str, *, committed: bool) -> None:
    """Repeat the request: executed or replayed according to the row; one effect in either case."""
    assert await api.counts(mark) == (EVERYTHING if committed else NOTHING)
    stored = await api.stored_body(mark)
    again = await client.post("/orders", **order_request(mark))
    assert again.status_code == 201, again.text
    assert ("idempotent-replayed" in again.headers) == committed
    assert again.content == (stored or await api.stored_body(mark))
    assert await api.counts(mark) == EVERYTHING
