"""One run: stage, writers, relays, faults; then calm, drain, and the account."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from tests.faults.chaos._cluster import ClusterFaults, ClusterStage
from tests.faults.chaos._cross_check import contradiction
from tests.faults.chaos._drain import all_rows, drained, persistently, skip, unpublished
from tests.faults.chaos._injector import Act, Injector, RelayFaults, SingleServerFaults
from tests.faults.chaos._journal import Answer, Journal, Timeline
from tests.faults.chaos._probes import PROBE_PREFIX, Prober
from tests.faults.chaos._relays import RelaySlot
from tests.faults.chaos._report import Account
from tests.faults.chaos._schedule import CLUSTER, SINGLE_SERVERS, Kind, Rhythm, Target, kinds_of, schedule
from tests.faults.chaos._stage import SingleStage, Stage
from tests.faults.chaos._topic import Follower, Isolation, read_all, wait_until_settled
from tests.faults.chaos._verdict import check_tables, lost_by_failovers, publishable, read
from tests.faults.chaos._writers import Writer

RELAYS: Final = 3
_WRITERS: Final = 4
_KEYS_PER_WRITER: Final = 80
_POISONED_KEYS: Final = 30
#: Poison of these keys waits until the end; that of the others is skipped within seconds.
_LEFT_ALONE: Final = 4
_EVENTS_PER_S: Final = 200.0
_SKIP_EVERY_S: Final = 2.0
_TELL_EVERY_S: Final = 15.0
#: A transaction left open by the last fault ends with its timeout (45 s) and the broker's next look.
_DRAIN_S: Final = 120.0
_SETTLE_S: Final = 70.0
_SKIP_ROUNDS_MAX: Final = 200
_LANE_KEYS: Final = """
    SELECT DISTINCT ON (lane) $1 || number AS key FROM generate_series(1, 2000) AS number
    JOIN relay_lanes ON hashtext($1 || number) BETWEEN hash_min AND hash_max ORDER BY lane
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What a run is asked for."""

    seed: int
    minutes: float
    delivery: str
    #: Told how the run goes, for people.
    tell: Callable[[str], None]


@dataclass(kw_only=True, slots=True)
class _Cast:
    """Who takes part in a run."""

    journal: Journal
    timeline: Timeline
    relays: Sequence[RelaySlot]
    writers: Sequence[Writer]
    poisoned: Writer
    prober: Prober
    follower: Follower
    injector: Injector
    #: Violations that are no record's.
    others: list[str] = field(default_factory=list[str])


async def run(plan: Plan, stage: Stage) -> Account:
    """Play *plan* on *stage* and account for it.

    Raises:
        Exception: the harness or a server failed; nothing is known about the guarantees then.
    """
    async with _cast(plan, stage) as cast:
        await _play(plan, stage, cast)
        plan.tell("the faults have ended; waiting for everything to be published")
        drain_s = await _drain(stage, cast)
        await asyncio.gather(*(relay.stop() for relay in cast.relays))
        cast.others += [f"SIGTERM refused: {what}" for relay in cast.relays for what in relay.stops_refused]
        plan.tell("reading tables and topic")
        return await _account(plan, stage, cast, drain_s)


@asynccontextmanager
async def _cast(plan: Plan, stage: Stage) -> AsyncGenerator[_Cast]:
    async with AsyncExitStack() as stack:
        journal = Journal(stage.directory / "journal.jsonl")
        timeline = Timeline(stage.directory / "timeline.log")
        stack.callback(journal.close)
        stack.callback(timeline.close)
        relays = [_relay(plan, stage, number, timeline) for number in range(RELAYS)]
        for relay in relays:
            relay.start()
            stack.callback(relay.kill)
        make = partial(Writer, journal=journal, timeline=timeline, seed=plan.seed)
        writers = [_writer(make, stage, number) for number in range(_WRITERS)]
        poisoned = make("poisoned", [f"poisoned-{n}" for n in range(_POISONED_KEYS)], stage.connect)
        rows = await persistently(stage, lambda one: one.fetch(_LANE_KEYS, PROBE_PREFIX), _DRAIN_S)
        probing = make("prober", [row["key"] for row in rows], stage.connect)
        for writer in (*writers, poisoned, probing):
            stack.push_async_callback(writer.close)
        follower = Follower(stage.bootstrap_servers, PROBE_PREFIX)
        follower.start()
        stack.callback(follower.stop)
        prober = Prober(probing)
        yield _Cast(
            journal=journal,
            timeline=timeline,
            relays=relays,
            writers=[*writers, poisoned],
            poisoned=poisoned,
            prober=prober,
            follower=follower,
            injector=Injector(
                {**RelayFaults(relays, timeline).acts, **_server_acts(stage, poisoned, timeline)},
                prober,
                timeline,
                recovery_from_strike=isinstance(stage, ClusterStage),
            ),
        )


def _server_acts(stage: Stage, poisoned: Writer, timeline: Timeline) -> Mapping[Kind, Act]:
    match stage:
        case SingleStage():
            return SingleServerFaults(stage, poisoned).acts
        case ClusterStage():
            return ClusterFaults(stage, timeline).acts
        case _:
            raise TypeError(f"no faults are known for {stage!r}")


def _rhythms(stage: Stage) -> Mapping[Target, Rhythm]:
    return CLUSTER if isinstance(stage, ClusterStage) else SINGLE_SERVERS


def _relay(plan: Plan, stage: Stage, number: int, timeline: Timeline) -> RelaySlot:
    name = f"relay-{number}"
    environment = {
        **stage.relay_environment(),
        "RELAY_DELIVERY": plan.delivery,
        "RELAY_POLL_INTERVAL": "1",
        "LOG_JSON": "true",
    }
    return RelaySlot(name, environment, stage.directory / f"{name}.log", timeline)


def _writer(make: Callable[..., Writer], stage: Stage, number: int) -> Writer:
    keys = [f"writer-{number}-{key}" for key in range(_KEYS_PER_WRITER)]
    # Half of them as services do: the answer to a COMMIT is lost behind a proxy or a pooler too.
    return make(f"writer-{number}", keys, partial(stage.connect, proxied=number % 2 == 1))


async def _play(plan: Plan, stage: Stage, cast: _Cast) -> None:
    ended = asyncio.Event()
    per_s = _EVENTS_PER_S / len(cast.writers)
    async with asyncio.TaskGroup() as group:
        writing = [group.create_task(writer.run(ended, per_s=per_s)) for writer in cast.writers]
        helpers = [
            group.create_task(cast.prober.run()),
            group.create_task(_skip_some(stage, cast)),
            group.create_task(_tell(plan, stage, cast)),
        ]
        try:
            await cast.injector.run(schedule(plan.seed, plan.minutes * 60, _rhythms(stage)))
            await asyncio.sleep(max(0.0, plan.minutes * 60 - cast.timeline.now_s()))
        finally:
            ended.set()  # also when a task failed: the driver may swallow a writer's cancellation
        await asyncio.gather(*writing)
        await cast.prober.settled()
        for helper in helpers:
            helper.cancel()


async def _skip_some(stage: Stage, cast: _Cast) -> None:
    """Act as an operator: skip poison that has FAILED, but for a few keys that wait until the end."""
    while True:
        await asyncio.sleep(_SKIP_EVERY_S)
        await skip(stage, cast.poisoned.keys[:_LEFT_ALONE], cast.timeline)


async def _tell(plan: Plan, stage: Stage, cast: _Cast) -> None:
    while True:
        await asyncio.sleep(_TELL_EVERY_S)
        waiting = await persistently(stage, unpublished, _DRAIN_S)
        faults, answers = cast.injector.injected, cast.journal.counts()
        plan.tell(
            f"{cast.timeline.now_s() / 60:5.1f} of {plan.minutes:g} min: {sum(faults.values())} faults, "
            f"{answers.total():,} events sent, {waiting:,} not published yet"
        )


async def _drain(stage: Stage, cast: _Cast) -> float | None:
    """Wait until only poison waits, then skip it, head by head, until nothing does."""
    drain_s = await drained(stage, _DRAIN_S)
    cast.timeline.note(f"drained: {drain_s}")
    for _ in range(_SKIP_ROUNDS_MAX):
        if drain_s is None or not await skip(stage, [], cast.timeline):
            return drain_s
        if await drained(stage, _DRAIN_S) is None:
            break
    cast.others.append("keys still waiting after their poison was skipped")
    return drain_s


async def _account(plan: Plan, stage: Stage, cast: _Cast, drain_s: float | None) -> Account:
    if drain_s is None:
        cast.others.append(f"not everything published within {_DRAIN_S:g} s")
    unsettled = await asyncio.to_thread(wait_until_settled, stage.bootstrap_servers, _SETTLE_S)
    cast.others += ["transaction still open, readers of committed messages wait" for _ in unsettled]
    rows = await all_rows(stage)
    journal, poison = cast.journal, cast.journal.poison
    windows = stage.lossy_windows if isinstance(stage, ClusterStage) else []
    at_risk = [each for window in windows for each in journal.open_between(*window)]
    gone = lost_by_failovers(rows, journal.answers, at_risk)
    expected = publishable(rows, poison)
    committed, uncommitted = [
        await asyncio.to_thread(read, expected, read_all(stage.bootstrap_servers, isolation), gone)
        for isolation in (Isolation.COMMITTED, Isolation.UNCOMMITTED)
    ]
    if difference := await contradiction(stage, committed):
        cast.others.append(difference)
    return Account(
        seed=plan.seed,
        minutes=plan.minutes,
        delivery=plan.delivery,
        kinds=kinds_of(_rhythms(stage)),
        injected=cast.injector.injected,
        answers=journal.counts(),
        committed=len(rows),
        poison=sum(row.event_id in poison for row in rows),
        read_committed=committed,
        read_uncommitted=uncommitted,
        lost_by_postgres=sum(journal.answers[each] is Answer.ACKNOWLEDGED for each in gone),
        tables=check_tables(rows, journal.answers, poison, gone),
        others=cast.others,
        probes=[probe for probe in cast.prober.probes if probe.event_ids.isdisjoint(gone)],
        seen_s=cast.follower.seen_s,
        drain_s=drain_s,
        ended_by_themselves=sum((relay.ended_by_themselves for relay in cast.relays), Counter[int]()),
    )
