"""The event stream of a session (G84)."""

import os
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import islice
from uuid import UUID

import asyncpg
import httpx2 as httpx
import pytest

from tests.fixtures.product import SESSIONS, Product, Writer

#: Event types of a session that was created and got requested concepts.
FIRST = [
    (1, "Genesis.Session.Created"),
    (2, "Genesis.Session.ConceptGenerationRequested"),
    (3, "Genesis.Session.ConceptProposed"),
]


@pytest.fixture
def session(writer: Writer) -> str:
    """Create a session at version 3."""
    session = writer.create()
    assert writer.command(session, "RequestConceptGeneration").status_code == 202
    assert writer.wait_until_settled(session)["version"] == 3
    return session


@pytest.mark.guarantee("G84")
def test_stream_sends_past_events_before_new_events(writer: Writer, session: str) -> None:
    with writer.follow(session) as events:
        assert [(event.id, event.type) for event in islice(events, 3)] == FIRST
        writer.command(session, "SubmitFeedback", feedback="darker")
        live = next(events)
        assert (live.id, live.type) == (4, "Genesis.Session.FeedbackSubmitted")
        assert live.data["payload"]["feedback"] == "darker"


@pytest.mark.guarantee("G84")
def test_interrupted_stream_resumes_without_gap_or_duplicate(writer: Writer, session: str) -> None:
    seen: list[int | None] = []
    last: int | None = None
    for _ in range(5):
        with writer.follow(session, last) as events:
            event = next(events)
        # An event is recorded while no stream is open.
        writer.command(session, "SubmitFeedback", feedback="again")
        seen.append(event.id)
        last = event.id
    assert seen == [1, 2, 3, 4, 5]


@pytest.mark.guarantee("G84")
def test_stream_resumes_by_query_parameter(writer: Writer, session: str) -> None:
    with writer.follow(session, after=2) as events:
        assert next(events).id == 3


@pytest.mark.guarantee("G84")
@pytest.mark.parametrize("cursor", [99, "2147483648", "nonsense", "-1", "9" * 20])
def test_stream_resets_a_cursor_of_another_database(writer: Writer, session: str, cursor: object) -> None:
    with writer.follow(session, cursor) as events:
        told = list(events)
    assert [(event.id, event.type, event.data) for event in told] == [(None, "reset", {"version": 3})]


@pytest.mark.guarantee("G84")
async def test_progress_event_has_no_id_and_keeps_the_cursor(
    writer: Writer, owner: asyncpg.Connection, agent_paused: Callable[[], AbstractContextManager[None]]
) -> None:
    session = writer.create()
    with writer.follow(session) as events:
        assert next(events).id == 1
        # A stream sends the progress at its next poll: the agent must not complete before.
        async with owner.transaction():
            with agent_paused():
                writer.command(session, "RequestConceptGeneration")
                await owner.execute("SELECT FROM genesis_sessions WHERE id = $1 FOR UPDATE", UUID(session))
            told = [next(events)]
            while told[-1].type != "task.progress":
                told.append(next(events))
        while told[-1].id != 3:
            told.append(next(events))
    progress = [event for event in told if event.type == "task.progress"]
    assert all(event.id is None for event in progress)
    percents = [event.data["progress"] for event in progress]
    assert percents == sorted(percents)
    assert [event.id for event in told if event.id is not None] == [2, 3]


def test_stream_ticket_opens_one_stream_without_header(
    product: Product, writer: Writer, session: str
) -> None:
    answer = writer.post(f"{SESSIONS}/{session}/stream-ticket")
    assert answer.status_code == 201
    ticket = answer.json()
    assert ticket["expires_in_s"] == 60
    with Writer(product.environment["API_URL"], None) as browser:
        with browser.follow(session, ticket=ticket["ticket"]) as events:
            assert next(events).id == 1
        again = browser.get(f"{SESSIONS}/{session}/events", params={"ticket": ticket["ticket"]})
    assert (again.status_code, again.json()["error_code"]) == (401, "TOKEN_MISSING")


def test_stream_ticket_opens_only_its_own_session(product: Product, writer: Writer, session: str) -> None:
    other = writer.create()
    ticket = writer.post(f"{SESSIONS}/{other}/stream-ticket").json()["ticket"]
    with Writer(product.environment["API_URL"], None) as browser:
        answer = browser.get(f"{SESSIONS}/{session}/events", params={"ticket": ticket})
    assert (answer.status_code, answer.json()["error_code"]) == (401, "TOKEN_MISSING")


@pytest.mark.guarantee("G84")
def test_stream_resumes_after_the_api_was_killed(product: Product, writer: Writer, session: str) -> None:
    with writer.follow(session) as events:
        assert next(events).id == 1
        os.kill(product.pid_of("api-gateway"), signal.SIGKILL)
        with pytest.raises(httpx.TransportError):
            list(events)
    product.wait_for_api()
    with writer.follow(session, 1) as events:
        assert [event.id for event in islice(events, 2)] == [2, 3]
