"""Effect and record are one: clients that go away, processes that die at COMMIT, COMMITs nobody hears of."""

import asyncio
import os
import signal
from uuid import uuid4

import asyncpg
import httpx2 as httpx
import pytest
from relaybox.settings import PostgresSettings

from tests.faults.chaos._proxy import Proxy, Way
from tests.fixtures.gates import ClosedGate, Gate, closed
from tests.fixtures.keyed import EVERYTHING, NOTHING, Keyed, order

AT_WORK = Gate("INSERT", "orders")
AT_COMMIT = Gate("INSERT", "orders", at_commit=True)
OF_MARK = """
    SELECT xmin::text FROM orders WHERE mark = $1
    UNION ALL SELECT xmin::text FROM event_outbox WHERE payload -> 'payload' ->> 'mark' = $1
    UNION ALL SELECT xmin::text FROM idempotency_cache
    UNION ALL SELECT xmin::text FROM idempotency_bodies
"""


@pytest.mark.guarantee("G63")
async def test_effect_event_claim_and_answer_are_of_one_transaction(
    keyed: Keyed, superuser: asyncpg.Connection
) -> None:
    mark = uuid4().hex
    await keyed.start()
    async with keyed.client() as client:
        answer = await client.post("/orders", **order(mark))
    assert answer.status_code == 201, answer.text
    transactions = [row["xmin"] for row in await superuser.fetch(OF_MARK, mark)]
    assert len(transactions) == 4
    assert len(set(transactions)) == 1


@pytest.mark.guarantee("G63")
@pytest.mark.parametrize("done", [False, True], ids=["undone", "done"])
async def test_nothing_of_an_answer_leaves_before_its_commit_has_returned(
    keyed: Keyed, superuser: asyncpg.Connection, done: bool
) -> None:
    """The process ends while its COMMIT is on the way: whatever it had sent before would arrive."""
    mark = uuid4().hex
    process = await keyed.start()
    async with keyed.client() as client:
        async with closed(superuser, AT_COMMIT) as gate:
            sending = asyncio.create_task(client.post("/orders", **order(mark)))
            backend = await gate.reached()
            if done:
                os.kill(process, signal.SIGSTOP)
                await keyed.frozen(process)
                await gate.open()
                await gate.passed(backend)
            await keyed.kill(process)
            with pytest.raises(httpx.TransportError):
                await sending
        await keyed.start()
        await check_retry(keyed, client, mark, committed=done)


@pytest.mark.guarantee("G64")
@pytest.mark.parametrize("gives_up", ["never", "once", "again and again"])
@pytest.mark.parametrize("gate", [AT_WORK, AT_COMMIT], ids=["at work", "at commit"])
async def test_a_client_that_goes_away_cannot_separate_effect_from_record(
    keyed: Keyed, superuser: asyncpg.Connection, gate: Gate, gives_up: str
) -> None:
    """Whether the server then goes on or cancels the request; a COMMIT on its way is not taken back.

    The retry comes to the same process, which has one connection: it must have got it back.
    """
    mark = uuid4().hex
    giving_up = {} if gives_up == "never" else {"KEYED_GIVES_UP": gives_up}
    await keyed.start(POSTGRES_POOL_SIZE="1", **giving_up)
    async with keyed.client() as client:
        async with closed(superuser, gate) as held:
            await leave(client, mark, held)
            if gives_up != "never":
                await keyed.gave_up()
                assert (await client.get("/healthz")).status_code == 200  # by then it has cancelled
        await keyed.at_rest()
        committed = gives_up == "never" or gate.at_commit
        await check_retry(keyed, client, mark, committed=committed)


@pytest.mark.guarantee("G05")
async def test_a_commit_that_never_took_place_is_carried_out_by_the_retry(
    keyed: Keyed, superuser: asyncpg.Connection
) -> None:
    """PostgreSQL ends the connection in the middle of COMMIT."""
    mark = uuid4().hex
    await keyed.start()
    async with keyed.client() as client:
        async with closed(superuser, AT_COMMIT) as gate:
            sending = asyncio.create_task(client.post("/orders", **order(mark)))
            await gate.undo(await gate.reached())
            unknown(await sending)
        await check_retry(keyed, client, mark, committed=False)


@pytest.mark.guarantee("G05")
async def test_a_commit_whose_answer_was_lost_is_told_by_its_row(
    keyed: Keyed, superuser: asyncpg.Connection, postgres_settings: PostgresSettings
) -> None:
    """The network ends after COMMIT took effect and before its answer came back."""
    mark = uuid4().hex
    proxy = Proxy(postgres_settings.port)
    await proxy.start()
    await keyed.start(POSTGRES_PORT=str(proxy.port))
    async with keyed.client() as client:
        async with closed(superuser, AT_COMMIT) as gate:
            sending = asyncio.create_task(client.post("/orders", **order(mark)))
            backend = await gate.reached()
            proxy.swallow(Way.ANSWERS)
            await gate.open()
            await gate.passed(backend)
            proxy.cut(1.0)
            unknown(await sending)
        proxy.swallow()
        await check_retry(keyed, client, mark, committed=True)
    await keyed.end()
    await proxy.close()


async def leave(client: httpx.AsyncClient, mark: str, gate: ClosedGate) -> None:
    """Send the request and close the connection once it is at the gate."""
    sending = asyncio.create_task(client.post("/orders", **order(mark)))
    await gate.reached()
    sending.cancel()
    await asyncio.wait([sending])


def unknown(answer: httpx.Response) -> None:
    assert (answer.status_code, answer.json()["error_code"]) == (503, "DATABASE_UNAVAILABLE"), answer.text
    assert "retry-after" in answer.headers


async def check_retry(keyed: Keyed, client: httpx.AsyncClient, mark: str, *, committed: bool) -> None:
    """The same request again: carried out or replayed, as the row says; in either case there is one."""
    assert await keyed.counts(mark) == (EVERYTHING if committed else NOTHING)
    stored = await keyed.stored(mark)
    again = await client.post("/orders", **order(mark))
    assert again.status_code == 201, again.text
    assert ("idempotent-replayed" in again.headers) == committed
    assert again.content == (stored or await keyed.stored(mark))
    assert await keyed.counts(mark) == EVERYTHING
