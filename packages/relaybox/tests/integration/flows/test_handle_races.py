"""Racing requests end a pause once: one gets 200, the others a named error, and none gets 500."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Annotated, Any

import httpx2 as httpx
import pytest
from fastapi import Depends, FastAPI
from prometheus_client import CollectorRegistry
from relaybox.db import Database
from relaybox.flows import cancel, confirm_paused, expire_handles, fetch_handle, pause, resume
from relaybox.http import IdempotencyMiddleware, UnitOfWork, create_app, unit_of_work

HOUR = timedelta(hours=1)
RESUMES = 64
#: Times until a pause expires that is also resumed and cancelled, so that each of the three wins sometimes.
_EXPIRES_MS = (0, 2, 5, 10, 20)
Status = tuple[int, str | None]
Race = Callable[["Pauses", int], Awaitable[None]]


async def _sender() -> str:
    return "ann"


def _app(database: Database) -> FastAPI:
    """Return an application whose routes call the transitions of a pause, each in a unit of work."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield

    app = create_app(title="Pauses", version="1", lifespan=lifespan, checks={}, registry=CollectorRegistry())
    app.add_middleware(IdempotencyMiddleware)
    Unit = Annotated[UnitOfWork[str], Depends(unit_of_work(database, _sender))]  # noqa: N806 - a type

    @app.post("/{name}/pause")
    async def request_pause(name: str, unit: Unit) -> None:
        await pause(unit.db, name, resume_handle={}, expires_in=HOUR)

    @app.post("/{name}/confirm")
    async def confirm(name: str, unit: Unit) -> None:
        await confirm_paused(unit.db, name)

    @app.post("/{name}/resume")
    async def resume_pause(name: str, body: dict[str, Any], unit: Unit) -> None:
        await resume(unit.db, name, body)

    @app.post("/{name}/cancel")
    async def cancel_pause(name: str, unit: Unit) -> None:
        await cancel(unit.db, name)

    _ = (request_pause, confirm, resume_pause, cancel_pause)
    return app


class Pauses:
    """Requests to the application, and the handles that they change."""

    def __init__(self, database: Database, client: httpx.AsyncClient) -> None:
        self.database = database
        self._client = client

    async def request(self, name: str, transition: str, body: dict[str, Any] | None = None) -> Status:
        """Return status and error code of the response; repeat the request as long as this is 503."""
        while True:
            response = await self._client.post(f"/{name}/{transition}", json=body)
            if response.status_code != 503:
                break
        return response.status_code, response.json().get("error_code") if response.is_error else None

    async def begin(self, name: str) -> None:
        """Pause *name*, and confirm this."""
        for transition in ("pause", "confirm"):
            assert await self.request(name, transition) == (200, None)

    async def outcome(self, name: str) -> tuple[str, bool, dict[str, Any] | None]:
        """Return how the pause *name* has ended, and check that it did so by one event."""
        async with self.database.connection() as connection:
            handle = await fetch_handle(connection, name)
            assert handle is not None
            ends = await connection.fetch(
                "SELECT count(*) AS number FROM domain_events WHERE aggregate_id = $1"
                " AND event_type ~ '(Resumed|Expired|Cancelled)$'",
                str(handle.id),
            )
        assert ends[0]["number"] == 1
        return handle.status.value, handle.cancelled, handle.resume_payload

    async def end_in(self, name: str, milliseconds: int) -> None:
        async with self.database.connection() as connection:
            await connection.fetch(
                "UPDATE flow_resume_handles SET expires_at = clock_timestamp() + make_interval(secs => $2)"
                " WHERE correlation_id = $1",
                name,
                milliseconds / 1_000,
            )

    async def expire(self) -> int:
        return len(await self.database.run_in_transaction(expire_handles, isolation="READ COMMITTED"))


@pytest.fixture
async def pauses(database: Database) -> AsyncIterator[Pauses]:
    transport = httpx.ASGITransport(_app(database), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://pauses") as client:
        yield Pauses(database, client)


async def of_64_resumes_one_counts(pauses: Pauses, number: int) -> None:
    """Resume a pause 64 times at once: confirmed, requested, or before it is requested."""
    name = f"resumes-{number}"
    for transition in ("pause", "confirm")[: number % 3]:
        await pauses.request(name, transition)
    requests = [pauses.request(name, "resume", {"n": one}) for one in range(RESUMES)]
    found = await asyncio.gather(*requests)
    assert Counter(found) == {(200, None): 1, (409, "FLOW_ALREADY_RESUMED"): RESUMES - 1}
    for transition in ("pause", "confirm")[number % 3 :]:
        assert await pauses.request(name, transition) == (200, None)
    assert await pauses.outcome(name) == ("RESUMED", False, {"n": found.index((200, None))})


async def resume_beside_the_pause_is_kept(pauses: Pauses, number: int) -> None:
    """Resume at the same time as the pause is requested and confirmed."""
    name = f"beside-{number}"
    _, resumed = await asyncio.gather(pauses.begin(name), pauses.request(name, "resume", {"n": number}))
    assert resumed == (200, None)
    assert await pauses.outcome(name) == ("RESUMED", False, {"n": number})


async def resume_cancel_and_expiry_have_one_winner(pauses: Pauses, number: int) -> None:
    """Resume, cancel and expire a pause at once."""
    name = f"end-{number}"
    await pauses.begin(name)
    expires_ms = _EXPIRES_MS[number % len(_EXPIRES_MS)]
    await pauses.end_in(name, expires_ms)

    async def expire() -> int:
        await asyncio.sleep(expires_ms / 1_000)
        return await pauses.expire()

    resumed, cancelled, expired = await asyncio.gather(
        pauses.request(name, "resume", {"n": number}), pauses.request(name, "cancel"), expire()
    )
    # The expiry skips a handle that another transaction has locked, even one that then finds it expired.
    expired += await pauses.expire()
    won = [
        (("RESUMED", False, {"n": number}), resumed == (200, None)),
        (("EXPIRED", True, None), cancelled == (200, None)),
        (("EXPIRED", False, None), expired == 1),
    ]
    outcome = await pauses.outcome(name)
    assert [end for end, is_winner in won if is_winner] == [outcome]
    losers = {"FLOW_ALREADY_RESUMED", "FLOW_EXPIRED", "FLOW_CANCELLED"}
    for status, code in (resumed, cancelled):
        assert status == 200 or (status == 409 and code in losers)


@pytest.mark.guarantee("G44")
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("rounds", [10, pytest.param(2_000, marks=pytest.mark.long)])
@pytest.mark.parametrize(
    "race",
    [
        of_64_resumes_one_counts,
        resume_beside_the_pause_is_kept,
        resume_cancel_and_expiry_have_one_winner,
    ],
)
async def test_racing_requests_end_a_pause_once(pauses: Pauses, race: Race, rounds: int) -> None:
    for number in range(rounds):
        await race(pauses, number)
