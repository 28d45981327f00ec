"""SIGKILL of each service at gates in the demo's story: the story completes without repetition."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum, auto

import asyncpg
import pytest

from tests.fixtures.gates import ClosedGate, Gate, closed_gate
from tests.fixtures.outages import frozen
from tests.fixtures.service_processes import AGENT, API, RELAY
from tests.fixtures.system_under_test import SystemUnderTest
from tests.fixtures.waiting import eventually

#: Waits at the gate, kills the victim and opens the gate.
Strike = Callable[[SystemUnderTest, ClosedGate, asyncpg.Connection], Awaitable[None]]


class Fate(Enum):
    """The fate of the statement at the gate."""

    UNDONE = auto()  # its process is killed and the statement never completes
    DONE = auto()  # the statement completes, and its process is killed before the response
    HEARD = auto()  # it belongs to another service, which continues


@dataclass(frozen=True)
class Moment:
    """Kills *victim* when the story reaches *gate*."""

    victim: str
    gate: Gate
    fate: Fate

    async def strike(self, system: SystemUnderTest, gate: ClosedGate, connection: asyncpg.Connection) -> None:
        if self.fate is Fate.HEARD:
            await gate.wait_until_reached()
            if self.victim is RELAY:
                await eventually("an idle relay", lambda: nothing_to_send(connection))
            system.services.kill(self.victim)
        else:
            await system.kill_at_gate(self.victim, gate, done=self.fate is Fate.DONE)
        await gate.open()


async def nothing_to_send(connection: asyncpg.Connection) -> bool:
    return not await anything_to_send(connection)


async def anything_to_send(connection: asyncpg.Connection) -> bool:
    return await connection.fetchval("SELECT EXISTS (SELECT FROM event_outbox WHERE status = 'PENDING')")


def event_is(name: str, column: str = "NEW.event_type") -> str:
    return f"{column} = 'Genesis.Session.{name}'"


IN_OUTBOX = "NEW.payload ->> 'event_type'"
BY_AGENT = "current_setting('application_name') = 'concept-agent'"
SENT = "NEW.status = 'SENT' AND "

API_MOMENTS = {
    "the session is being created": Moment(API, Gate("INSERT", "genesis_sessions"), Fate.UNDONE),
    "the request is recorded, its answer not sent": Moment(
        API, Gate("INSERT", "command_inbox", "NEW.command_type = 'RequestConceptGeneration'"), Fate.DONE
    ),
    "the feedback's statement is in flight": Moment(
        API, Gate("INSERT", "event_outbox", event_is("FeedbackSubmitted", IN_OUTBOX)), Fate.UNDONE
    ),
    "a confirmation is recorded, its answer not sent": Moment(
        API, Gate("INSERT", "domain_events", event_is("StageConfirmed")), Fate.DONE
    ),
    "the stream is open, the agent at work": Moment(
        API, Gate("UPDATE", "async_tasks", "NEW.progress = 35"), Fate.HEARD
    ),
    "the last confirmation is in flight": Moment(
        API, Gate("INSERT", "domain_events", event_is("Finished")), Fate.UNDONE
    ),
}
RELAY_MOMENTS = {
    "a request is published, not marked": Moment(
        RELAY,
        Gate("UPDATE", "event_outbox", SENT + event_is("ConceptGenerationRequested", IN_OUTBOX)),
        Fate.UNDONE,
    ),
    "a proposal is marked, which it has not heard": Moment(
        RELAY, Gate("UPDATE", "event_outbox", SENT + event_is("ConceptProposed", IN_OUTBOX)), Fate.DONE
    ),
    "it is idle and holds its lanes": Moment(
        RELAY, Gate("UPDATE", "async_tasks", "NEW.progress = 35"), Fate.HEARD
    ),
    "a confirmation is about to be written": Moment(
        RELAY, Gate("INSERT", "event_outbox", event_is("StageConfirmed", IN_OUTBOX)), Fate.HEARD
    ),
}
AGENT_MOMENTS = {
    "it has consumed a request, nothing is committed": Moment(
        AGENT, Gate("INSERT", "async_tasks"), Fate.UNDONE
    ),
    "the task is made, the muse not asked": Moment(
        AGENT,
        Gate("UPDATE", "async_tasks", "OLD.status = 'PENDING' AND NEW.status = 'RUNNING'"),
        Fate.UNDONE,
    ),
    "it is in the middle of its progress": Moment(
        AGENT, Gate("UPDATE", "async_tasks", "NEW.progress = 60"), Fate.DONE
    ),
    "the muse is done, the report in flight": Moment(
        AGENT, Gate("UPDATE", "genesis_sessions", BY_AGENT), Fate.UNDONE
    ),
    "the report is recorded, which it has not heard": Moment(
        AGENT, Gate("UPDATE", "genesis_sessions", BY_AGENT), Fate.DONE
    ),
}
#: Time of a relay's last poll for events after $1.
FETCHED_AFTER = """
    SELECT query_start FROM pg_stat_activity
    WHERE application_name = 'message-relay' AND datname = current_database() AND state = 'idle'
        AND query LIKE '%due AS (%' AND query_start > $1
"""
#: After each kill of an agent Kafka reassigns its partitions after 6 s.
LONG = {
    "the task is made, the muse not asked",
    "it is in the middle of its progress",
    "the report is recorded, which it has not heard",
}


@pytest.mark.guarantee("G05")
@pytest.mark.parametrize("name", API_MOMENTS)
async def test_story_completes_once_when_the_api_is_killed(system: SystemUnderTest, name: str) -> None:
    """The client sends a request without a response again, under the same key."""
    await tell_and_kill(system, API_MOMENTS[name])


@pytest.mark.guarantee("G20")
@pytest.mark.parametrize("name", RELAY_MOMENTS)
async def test_story_completes_once_when_the_relay_is_killed(system: SystemUnderTest, name: str) -> None:
    await tell_and_kill(system, RELAY_MOMENTS[name])


@pytest.mark.guarantee("G06")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long) if name in LONG else name for name in AGENT_MOMENTS]
)
async def test_story_completes_once_when_the_agent_is_killed(system: SystemUnderTest, name: str) -> None:
    await tell_and_kill(system, AGENT_MOMENTS[name])


@pytest.mark.guarantee("G20")
async def test_relay_killed_with_fetched_events_not_yet_produced(system: SystemUnderTest) -> None:
    """Kafka is frozen, then killed, so that only the relay has the events."""

    async def strike(system: SystemUnderTest, gate: ClosedGate, connection: asyncpg.Connection) -> None:
        await gate.wait_until_reached()
        with frozen(system.kafka):
            system.services.freeze(RELAY)
            await gate.open()
            await eventually("the event", lambda: anything_to_send(connection))
            began = await connection.fetchval("SELECT clock_timestamp()")
            system.services.resume(RELAY)
            looks = [None]

            async def stuck() -> bool:
                looks.append(await connection.fetchval(FETCHED_AFTER, began))
                return looks[-1] is not None and looks[-1] == looks[-2]

            # With a batch in flight the relay fetches once more, then waits for the first batch.
            await eventually("a relay that waits for Kafka", stuck)
            system.services.kill(RELAY)
            # Bytes that the frozen broker has not read are lost with it.
            system.kafka.kill()
            await system.kafka.start()

    gate = Gate("INSERT", "event_outbox", event_is("FeedbackSubmitted", IN_OUTBOX))
    await tell_and_kill(system, Moment(RELAY, gate, Fate.HEARD), strike)


@pytest.mark.guarantee("G40")
async def test_agent_killed_between_its_commit_and_the_offset_commit(system: SystemUnderTest) -> None:
    """Kafka is frozen when the handler commits, so the offset commit fails and the event is repeated."""

    async def strike(system: SystemUnderTest, gate: ClosedGate, connection: asyncpg.Connection) -> None:
        await gate.wait_until_reached()
        before = await connection.fetchval("SELECT count(*) FROM async_tasks")
        with frozen(system.kafka):
            await gate.open()

            async def committed() -> bool:
                return await connection.fetchval("SELECT count(*) FROM async_tasks") > before

            await eventually("the task", committed)
            system.services.kill(AGENT)

    await tell_and_kill(system, Moment(AGENT, Gate("INSERT", "async_tasks"), Fate.DONE), strike)


async def tell_and_kill(system: SystemUnderTest, moment: Moment, strike: Strike | None = None) -> None:
    """Run the story, kill the victim at its gate, restart it, and check consistency."""
    await system.services.ensure_running(API, RELAY, AGENT)
    async with system.superuser() as connection, asyncio.TaskGroup() as story:
        async with closed_gate(connection, moment.gate) as held:
            story.create_task(system.run_story())
            await (strike or moment.strike)(system, held, connection)
        assert moment.victim not in system.services.running()
        await system.services.start(moment.victim)
    await system.check_consistency()
