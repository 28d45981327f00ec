"""Handles of flows: each pause has exactly one outcome, and an early resume is kept."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from relaybox.db import Database, Isolation
from relaybox.events import RecordedEvent, fetch_chain
from relaybox.flows import (
    FlowAlreadyPaused,
    FlowAlreadyResumed,
    FlowCancelled,
    FlowDocumentInvalid,
    FlowError,
    FlowExpired,
    FlowUnknown,
    Handle,
    cancel,
    chain_of,
    confirm_paused,
    expire_handles,
    fetch_handle,
    pause,
    resume,
)
from relaybox_types.enums import HandleStatus
from sqlalchemy.ext.asyncio import AsyncSession

HOUR = timedelta(hours=1)
HANDLE = {"flow_run": "a"}
Transition = Callable[[AsyncSession], Awaitable[Handle]]


@pytest.fixture
def flow() -> str:
    return f"{uuid4()}/approval"


def pausing(flow: str, expires_in: timedelta = HOUR) -> Transition:
    return lambda db: pause(db, flow, resume_handle=HANDLE, expires_in=expires_in)


async def paused(database: Database, flow: str) -> Handle:
    await database.run_in_transaction(pausing(flow))
    return await database.run_in_transaction(lambda db: confirm_paused(db, flow))


async def last(database: Database, flow: str) -> Handle:
    async with database.connection() as connection:
        found = await fetch_handle(connection, flow)
    assert found is not None
    return found


async def events_of(database: Database, flow: str) -> list[RecordedEvent]:
    async with database.connection() as connection:
        return await fetch_chain(connection, chain_of(flow))


async def names_of(database: Database, flow: str) -> list[str]:
    return [event.type.rpartition(".")[2] for event in await events_of(database, flow)]


async def let_time_pass(database: Database, flow: str) -> None:
    async with database.connection() as connection:
        await connection.fetch(
            "UPDATE flow_resume_handles SET expires_at = now() - interval '1 s' WHERE correlation_id = $1",
            flow,
        )


@pytest.mark.guarantee("G44")
async def test_paused_flow_is_resumed_with_the_payload(database: Database, flow: str) -> None:
    assert (await paused(database, flow)).status is HandleStatus.PAUSED
    resumed = await database.run_in_transaction(lambda db: resume(db, flow, {"approved": True}))
    assert (resumed.status, resumed.resume_handle) == (HandleStatus.RESUMED, HANDLE)
    assert (await last(database, flow)).resume_payload == {"approved": True}
    assert await names_of(database, flow) == ["PauseRequested", "Paused", "Resumed"]


@pytest.mark.guarantee("G44")
async def test_resume_before_the_confirmation_is_delivered_by_it(database: Database, flow: str) -> None:
    await database.run_in_transaction(pausing(flow))
    kept = await database.run_in_transaction(lambda db: resume(db, flow, {"n": 1}))
    assert kept.resume_is_kept
    delivered = await database.run_in_transaction(lambda db: confirm_paused(db, flow))
    assert (delivered.status, delivered.resume_payload) == (HandleStatus.RESUMED, {"n": 1})
    assert await names_of(database, flow) == ["PauseRequested", "ResumeReceived", "Resumed"]


@pytest.mark.guarantee("G44")
async def test_resume_before_the_pause_is_kept_for_it(database: Database, flow: str) -> None:
    early = await database.run_in_transaction(lambda db: resume(db, flow, {"n": 1}))
    assert (early.status, early.registered) == (HandleStatus.PENDING_PAUSE, False)
    requested = await database.run_in_transaction(pausing(flow))
    assert requested.resume_is_kept
    assert (requested.id, requested.resume_handle) == (early.id, HANDLE)
    delivered = await database.run_in_transaction(lambda db: confirm_paused(db, flow))
    assert (delivered.status, delivered.resume_payload) == (HandleStatus.RESUMED, {"n": 1})
    assert await names_of(database, flow) == ["ResumeReceived", "PauseRequested", "Resumed"]


async def test_resumed_event_carries_what_an_engine_needs(database: Database, flow: str) -> None:
    await paused(database, flow)
    await database.run_in_transaction(lambda db: resume(db, flow, {"n": 1}))
    event = (await events_of(database, flow))[-1]
    assert event.payload == {"correlation_id": flow, "resume_handle": HANDLE, "resume_payload": {"n": 1}}


async def test_confirming_again_changes_nothing(database: Database, flow: str) -> None:
    first = await paused(database, flow)
    assert await database.run_in_transaction(lambda db: confirm_paused(db, flow)) == first
    assert await names_of(database, flow) == ["PauseRequested", "Paused"]


async def test_second_pause_is_refused_until_the_first_has_ended(database: Database, flow: str) -> None:
    await paused(database, flow)
    with pytest.raises(FlowAlreadyPaused):
        await database.run_in_transaction(pausing(flow))
    await database.run_in_transaction(lambda db: resume(db, flow, {}))
    assert (await paused(database, flow)).status is HandleStatus.PAUSED


async def test_pause_whose_time_is_over_makes_way_for_the_next(database: Database, flow: str) -> None:
    await paused(database, flow)
    await let_time_pass(database, flow)
    assert (await paused(database, flow)).status is HandleStatus.PAUSED
    names = await names_of(database, flow)
    assert names == ["PauseRequested", "Paused", "Expired", "PauseRequested", "Paused"]


RESUMED_BEFORE, EXPIRED_BEFORE, CANCELLED_BEFORE = "resumed", "expired", "cancelled"


@pytest.mark.parametrize("step", [resume, cancel, confirm_paused])
@pytest.mark.parametrize(
    ("end", "error"),
    [
        (RESUMED_BEFORE, FlowAlreadyResumed),
        (EXPIRED_BEFORE, FlowExpired),
        (CANCELLED_BEFORE, FlowCancelled),
        ("over", FlowExpired),
    ],
)
async def test_ended_pause_accepts_no_transition(
    database: Database, flow: str, step: Any, end: str, error: type[FlowError]
) -> None:
    await database.run_in_transaction(pausing(flow))
    if end in (RESUMED_BEFORE, CANCELLED_BEFORE):
        await database.run_in_transaction(lambda db: confirm_paused(db, flow))
        ending: Transition = (
            (lambda db: resume(db, flow, {"first": True}))
            if end == RESUMED_BEFORE
            else (lambda db: cancel(db, flow))
        )
        await database.run_in_transaction(ending)
    else:
        await let_time_pass(database, flow)
        if end == EXPIRED_BEFORE:
            assert len(await database.run_in_transaction(expire_handles)) == 1
    before = await last(database, flow)
    arguments = ({"second": True},) if step is resume else ()
    with pytest.raises(error):
        await database.run_in_transaction(lambda db: step(db, flow, *arguments))
    assert await last(database, flow) == before


@pytest.mark.parametrize("step", [cancel, confirm_paused])
@pytest.mark.parametrize("early", [False, True])
async def test_pause_that_was_not_requested_is_unknown(
    database: Database, flow: str, step: Any, early: bool
) -> None:
    if early:
        await database.run_in_transaction(lambda db: resume(db, flow, {}))
    with pytest.raises(FlowUnknown):
        await database.run_in_transaction(lambda db: step(db, flow))


async def test_second_early_resume_is_refused(database: Database, flow: str) -> None:
    await database.run_in_transaction(lambda db: resume(db, flow, {"n": 1}))
    with pytest.raises(FlowAlreadyResumed):
        await database.run_in_transaction(lambda db: resume(db, flow, {"n": 2}))
    assert (await last(database, flow)).resume_payload == {"n": 1}


async def test_expiry_takes_only_handles_whose_time_is_over(database: Database, flow: str) -> None:
    await paused(database, flow)
    other = f"{uuid4()}/other"
    await paused(database, other)
    await let_time_pass(database, other)
    expired = await database.run_in_transaction(expire_handles)
    assert [handle.correlation_id for handle in expired] == [other]
    assert (await last(database, flow)).status is HandleStatus.PAUSED
    assert (await names_of(database, other))[-1] == "Expired"


async def test_expiry_is_bounded(database: Database) -> None:
    for number in range(3):
        await database.run_in_transaction(pausing(f"flow-{number}", timedelta(microseconds=1)))
    sizes = [
        len(await database.run_in_transaction(lambda db: expire_handles(db, handles_max=2))) for _ in range(3)
    ]
    assert sizes == [2, 1, 0]


async def outcome_of(database: Database, step: Transition) -> Handle | FlowError:
    try:
        return await database.run_in_transaction(step, attempts_max=100)
    except FlowError as error:
        return error


@pytest.mark.guarantee("G44")
@pytest.mark.parametrize("is_paused", [True, False])
async def test_of_64_concurrent_resumes_one_counts(database: Database, is_paused: bool) -> None:
    flow = f"{uuid4()}/race"
    if is_paused:
        await paused(database, flow)
    steps: list[Transition] = [lambda db, n=n: resume(db, flow, {"n": n}) for n in range(64)]
    outcomes = await asyncio.gather(*(outcome_of(database, step) for step in steps))
    kinds = Counter(type(outcome) for outcome in outcomes)
    assert kinds == {Handle: 1, FlowAlreadyResumed: 63}
    [winner] = (outcome for outcome in outcomes if isinstance(outcome, Handle))
    assert (await last(database, flow)).resume_payload == winner.resume_payload


async def wins(database: Database, step: Transition, isolation: Isolation) -> bool:
    try:
        await database.run_in_transaction(step, isolation=isolation, attempts_max=100)
    except FlowError:
        return False
    return True


async def race_to_the_end(database: Database, flow: str, isolation: Isolation) -> int:
    """Resume, cancel and expire a paused flow at once; return the number of winners."""
    await paused(database, flow)
    async with database.connection() as connection:
        await connection.fetch(
            "UPDATE flow_resume_handles SET expires_at = clock_timestamp() + interval '5 ms' "
            "WHERE correlation_id = $1",
            flow,
        )

    async def expire() -> bool:
        await asyncio.sleep(0.005)
        return bool(await database.run_in_transaction(expire_handles, isolation=isolation))

    won = await asyncio.gather(
        wins(database, lambda db: resume(db, flow, {}), isolation),
        wins(database, lambda db: cancel(db, flow), isolation),
        expire(),
    )
    # The expiry skips a handle that another transaction has locked, even one that then finds it expired.
    return sum(won) + len(await database.run_in_transaction(expire_handles))


@pytest.mark.guarantee("G44")
@pytest.mark.parametrize("isolation", ["READ COMMITTED", "REPEATABLE READ"])
async def test_resume_cancel_and_expiry_have_one_winner(database: Database, isolation: Isolation) -> None:
    for number in range(50):
        assert await race_to_the_end(database, f"race-{number}", isolation) == 1
        assert (await last(database, f"race-{number}")).version == 3


async def pause_and_confirm(database: Database, flow: str) -> None:
    await database.run_in_transaction(pausing(flow), attempts_max=100)
    await database.run_in_transaction(lambda db: confirm_paused(db, flow), attempts_max=100)


async def resume_with(database: Database, flow: str, payload: dict[str, Any]) -> None:
    await database.run_in_transaction(lambda db: resume(db, flow, payload), attempts_max=100)


@pytest.mark.guarantee("G44")
async def test_resume_beside_a_pause_is_never_lost(database: Database) -> None:
    for number in range(50):
        flow, payload = f"beside-{number}", {"n": number}
        await asyncio.gather(pause_and_confirm(database, flow), resume_with(database, flow, payload))
        handle = await last(database, flow)
        assert (handle.status, handle.resume_payload) == (HandleStatus.RESUMED, payload)


@pytest.mark.parametrize(
    "payload", [{"text": "x" * 65_536}, {"text": "a\0b"}, {"value": object()}], ids=["large", "nul", "object"]
)
async def test_payload_that_cannot_be_stored_is_refused(
    database: Database, flow: str, payload: dict[str, Any]
) -> None:
    await paused(database, flow)
    with pytest.raises(FlowDocumentInvalid, match="payload"):
        await database.run_in_transaction(lambda db: resume(db, flow, payload))
    assert (await last(database, flow)).status is HandleStatus.PAUSED


@pytest.mark.parametrize("correlation_id", ["", "x" * 201, "a\0b"])
async def test_malformed_correlation_id_is_refused(database: Database, correlation_id: str) -> None:
    with pytest.raises(FlowDocumentInvalid, match="correlation id"):
        await database.run_in_transaction(pausing(correlation_id))


async def test_pause_without_time_is_refused(database: Database, flow: str) -> None:
    with pytest.raises(ValueError, match="expires_in"):
        await database.run_in_transaction(pausing(flow, timedelta()))
