"""An API killed at every moment of a keyed request: the request is atomic and its key free."""

from uuid import uuid4

import httpx2 as httpx
import pytest

from tests.fixtures.idempotent_api import EVERYTHING, NOTHING, IdempotentApi, order_request
from tests.fixtures.idempotent_app import Moment

#: Before COMMIT nothing may exist; after COMMIT everything must; during COMMIT either is allowed.
COMMITTED = {moment: list(Moment).index(moment) > list(Moment).index(Moment.COMMIT_SENT) for moment in Moment}
TIMES = [2, pytest.param(50, marks=[pytest.mark.long, pytest.mark.timeout(600)])]


@pytest.mark.guarantee("G63")
@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("moment", Moment)
async def test_api_killed_at_any_moment_is_atomic_and_frees_the_key(
    api: IdempotentApi, moment: Moment, times: int
) -> None:
    """Repeat the request at a restarted API: one effect, and the stored or received response."""
    for _ in range(times):
        mark = uuid4().hex
        await api.wait_for_exit(await killed(api, moment, mark))


async def killed(api: IdempotentApi, moment: Moment, mark: str) -> int:
    """Run one round; return the remaining process."""
    async with api.client() as client:
        dying = await api.start(at=moment)
        seen = await cut_short(client, mark)
        await api.wait_for_exit(dying)
        assert (seen is not None) == (moment is Moment.RESPONSE_STARTED)
        there, stored = await api.counts(mark), await api.stored_body(mark)
        assert there in (NOTHING, EVERYTHING)
        if moment is not Moment.COMMIT_SENT:
            assert (there == EVERYTHING) == COMMITTED[moment]
        living = await api.start()
        again = await client.post("/orders", **order_request(mark))
    assert again.status_code == 201, again.text
    assert ("idempotent-replayed" in again.headers) == (there == EVERYTHING)
    assert await api.counts(mark) == EVERYTHING
    assert again.content == (stored or await api.stored_body(mark))
    assert again.content.startswith(seen or b"")
    await api.kill(living)
    return living


async def cut_short(client: httpx.AsyncClient, mark: str) -> bytes | None:
    """Return the received part of an incomplete response; None without a status."""
    seen: bytes | None = None
    try:
        async with client.stream("POST", "/orders", **order_request(mark)) as answer:
            assert answer.status_code == 201
            seen = b""
            async for piece in answer.aiter_raw():
                seen += piece
    except httpx.TransportError:
        return seen
    raise AssertionError(f"it arrived whole: {seen}")
