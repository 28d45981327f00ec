"""A process with a locked key that is frozen, or killed during its statement."""

import asyncio
import os
import signal
from collections.abc import AsyncGenerator
from uuid import uuid4

import asyncpg
import httpx2 as httpx
import pytest

from tests.fixtures.gates import Gate, closed_gate
from tests.fixtures.idempotent_api import EVERYTHING, IdempotentApi, order_request
from tests.fixtures.idempotent_app import Moment
from tests.fixtures.waiting import eventually


@pytest.mark.guarantee("G69")
@pytest.mark.parametrize("moment", [Moment.CLAIMED, Moment.EFFECT_DONE, Moment.RESPONSE_STORED])
async def test_frozen_holder_that_lost_its_key_cannot_commit(
    api: IdempotentApi, superuser: asyncpg.Connection, moment: Moment
) -> None:
    """PostgreSQL rolls the transaction back; another process executes the request."""
    mark = uuid4().hex
    holder = await api.start(moment, signal.SIGSTOP, POSTGRES_IDLE_IN_TRANSACTION_TIMEOUT_MS="500")
    async with api.client() as client:
        waiting = asyncio.create_task(client.post("/orders", **order_request(mark)))
        await api.wait_until_stopped(holder)
        other = await api.start()
        taken = await eventually("a free key", lambda: not_in_flight(client, mark))
        assert taken.status_code == 201, taken.text
        assert "idempotent-replayed" not in taken.headers
        os.kill(holder, signal.SIGCONT)
        late = await waiting
        assert late.status_code == 503, late.text
        assert "retry-after" in late.headers
        again = await client.post("/orders", **order_request(mark))
    assert again.headers["idempotent-replayed"] == "true"
    assert again.content == taken.content
    assert await api.counts(mark) == EVERYTHING
    assert await superuser.fetchval("SELECT process FROM orders") == other


@pytest.mark.guarantee("G69")
async def test_holder_frozen_after_commit_sends_the_stored_response(
    api: IdempotentApi,
) -> None:
    mark = uuid4().hex
    holder = await api.start(Moment.COMMIT_SENT, signal.SIGSTOP)
    async with api.client() as client:
        waiting = asyncio.create_task(client.post("/orders", **order_request(mark)))
        await api.wait_until_stopped(holder)
        await api.start()
        again = await eventually("a free key", lambda: not_in_flight(client, mark))
        os.kill(holder, signal.SIGCONT)
        late = await waiting
    assert again.headers["idempotent-replayed"] == "true"
    assert (again.status_code, again.content) == (late.status_code, late.content)
    assert await api.counts(mark) == EVERYTHING


@pytest.mark.guarantee("G69")
async def test_key_of_a_killed_process_is_free_before_its_statement_ends(
    api: IdempotentApi, superuser: asyncpg.Connection
) -> None:
    """The statement waits at a closed gate: only client_connection_check_interval ends it."""
    mark = uuid4().hex
    dying = await api.start()
    gate = closed_gate(superuser, Gate("INSERT", "orders", f"NEW.process = {dying}"))
    async with api.client() as client, gate as at_gate:
        sending = asyncio.create_task(client.post("/orders", **order_request(mark)))
        await at_gate.wait_until_reached()
        await api.kill(dying)
        with pytest.raises(httpx.TransportError):
            await sending
        await api.start()
        answer = await client.post("/orders", **order_request(mark))
    assert answer.status_code == 201, answer.text
    assert "idempotent-replayed" not in answer.headers
    assert await api.counts(mark) == EVERYTHING


async def test_slow_request_body_holds_no_transaction(api: IdempotentApi) -> None:
    """The only connection stays free for others: a slow client must not block a process."""
    await api.start(POSTGRES_POOL_SIZE="1", POSTGRES_CONNECT_TIMEOUT_S="1")
    mark, more, other = uuid4().hex, asyncio.Event(), uuid4().hex
    begun = asyncio.Event()

    async def slow_body() -> AsyncGenerator[bytes]:
        yield b'{"mark": '
        begun.set()
        await more.wait()
        yield f'"{mark}"}}'.encode()

    async with api.client() as client:
        headers = order_request(mark)["headers"]
        slow = asyncio.create_task(client.post("/notes", content=slow_body(), headers=headers))
        await begun.wait()
        answer = await client.post("/orders", **order_request(other))
        more.set()
        late = await slow
    assert answer.status_code == 201, answer.text
    assert late.status_code == 201, late.text
    assert await api.counts(mark) == EVERYTHING


async def not_in_flight(client: httpx.AsyncClient, mark: str) -> httpx.Response | None:
    answer = await client.post("/orders", **order_request(mark))
    if answer.status_code != 409:
        return answer
    assert answer.json()["error_code"] == "REQUEST_IN_FLIGHT", answer.text
    return None
