"""One run: servers, writers, relays and faults; then drain and report."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final
from uuid import UUID

from tests.faults.chaos._cluster import ClusterFaults, ClusterServers
from tests.faults.chaos._comparison import check_tables, compare_topic, lost_by_failovers, publishable_events
from tests.faults.chaos._consumers import ConsumerGroup
from tests.faults.chaos._cross_check import verify_difference
from tests.faults.chaos._drain import (
    count_unpublished,
    fetch_rows,
    retry_while_unavailable,
    skip_poison,
    wait_until_drained,
)
from tests.faults.chaos._effects import compare_effects
from tests.faults.chaos._handlers import EVENT_TYPE
from tests.faults.chaos._injector import FaultHandler, Injector, ServiceFaults, SingleServerFaults
from tests.faults.chaos._journal import CommitResult, Journal, Timeline
from tests.faults.chaos._probes import PROBE_PREFIX, Prober
from tests.faults.chaos._report import ConsumerReport, Report
from tests.faults.chaos._schedule import (
    CLUSTER,
    SINGLE_SERVERS,
    FaultKind,
    FaultPattern,
    Target,
    kinds_of,
    schedule,
)
from tests.faults.chaos._servers import ChaosServers, SingleServers
from tests.faults.chaos._services import ServiceSlot
from tests.faults.chaos._topic import Isolation, TopicFollower, read_topic, wait_until_settled
from tests.faults.chaos._writers import Writer

RELAYS: Final = 3
_WRITERS: Final = 4
_KEYS_PER_WRITER: Final = 80
_POISONED_KEYS: Final = 30
#: Number of keys whose poison stays until the end; that of other keys is skipped within seconds.
_LEFT_ALONE: Final = 4
_EVENTS_PER_S: Final = 200.0
_SKIP_EVERY_S: Final = 2.0
_PROGRESS_EVERY_S: Final = 15.0
#: Longest time without progress after the faults. An open transaction ends at its timeout (45 s) and
#: the broker's next check.
_STALLED_S: Final = 120.0
_SETTLE_S: Final = 70.0
_SKIP_ROUNDS_MAX: Final = 200
_LANE_KEYS: Final = """
    SELECT DISTINCT ON (lane) $1 || number AS key FROM generate_series(1, 2000) AS number
    JOIN relay_lanes ON hashtext($1 || number) BETWEEN hash_min AND hash_max ORDER BY lane
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """The parameters of a run."""

    seed: int
    minutes: float
    delivery: str
    #: Called with progress messages for people.
    on_progress: Callable[[str], None]


@dataclass(kw_only=True, slots=True)
class _Harness:
    """The components of a run."""

    journal: Journal
    timeline: Timeline
    relays: Sequence[ServiceSlot]
    writers: Sequence[Writer]
    poisoned: Writer
    prober: Prober
    follower: TopicFollower
    injector: Injector
    #: None on a cluster: a promotion of a lagging standby loses effects of events that are not read again.
    consumers: ConsumerGroup | None
    #: Violations that concern no single record.
    other_violations: list[str] = field(default_factory=list[str])


async def run(plan: Plan, servers: ChaosServers) -> Report:
    """Run *plan* on *servers* and report the result.

    Raises:
        Exception: The harness or a server failed; the guarantees were not checked.
    """
    async with _started_harness(plan, servers) as harness:
        await _inject_faults(plan, servers, harness)
        plan.on_progress("faults ended; waiting until the outbox is published")
        drain_s = await _drain_outbox(servers, harness)
        await asyncio.gather(*(relay.stop() for relay in harness.relays))
        harness.other_violations += [
            f"SIGTERM refused: {what}" for relay in harness.relays for what in relay.failed_stops
        ]
        unsettled = await asyncio.to_thread(wait_until_settled, servers.bootstrap_servers, _SETTLE_S)
        harness.other_violations += ["open transaction: read_committed consumers wait" for _ in unsettled]
        if harness.consumers is not None:
            plan.on_progress("waiting until the consumers have processed every event")
            await harness.consumers.drain(_STALLED_S)
            harness.other_violations += [
                f"SIGTERM refused: {what}" for what in await harness.consumers.stop()
            ]
        plan.on_progress("reading tables and topic")
        return await _build_report(plan, servers, harness, drain_s)


@asynccontextmanager
async def _started_harness(plan: Plan, servers: ChaosServers) -> AsyncGenerator[_Harness]:
    async with AsyncExitStack() as stack:
        journal = Journal(servers.directory / "journal.jsonl")
        timeline = Timeline(servers.directory / "timeline.log")
        stack.callback(journal.close)
        stack.callback(timeline.close)
        relays = [_relay(plan, servers, number, timeline) for number in range(RELAYS)]
        for relay in relays:
            relay.start()
            stack.callback(relay.kill)
        make = partial(Writer, journal=journal, timeline=timeline, seed=plan.seed)
        writers = [_writer(make, servers, number) for number in range(_WRITERS)]
        poisoned = make("poisoned", [f"poisoned-{n}" for n in range(_POISONED_KEYS)], servers.connect)
        probing = make("prober", await _keys_of_lanes(servers), servers.connect)
        handlers = {**_relay_handlers(relays, timeline), **_server_handlers(servers, poisoned, timeline)}
        consumers = await stack.enter_async_context(_started_consumers(plan, servers, timeline))
        if consumers is not None:
            handlers |= consumers.handlers
            writers.append(make("consumed", consumers.keys, servers.connect, event_type=EVENT_TYPE))
        for writer in (*writers, poisoned, probing):
            stack.push_async_callback(writer.close)
        follower = TopicFollower(servers.bootstrap_servers, PROBE_PREFIX)
        follower.start()
        stack.callback(follower.stop)
        prober = Prober(probing)
        yield _Harness(
            journal=journal,
            timeline=timeline,
            relays=relays,
            writers=[*writers, poisoned],
            poisoned=poisoned,
            prober=prober,
            follower=follower,
            injector=Injector(
                handlers, prober, timeline, recovery_from_strike=isinstance(servers, ClusterServers)
            ),
            consumers=consumers,
        )


async def _keys_of_lanes(servers: ChaosServers) -> list[str]:
    """Return one key of each lane."""
    rows = await retry_while_unavailable(servers, lambda one: one.fetch(_LANE_KEYS, PROBE_PREFIX), _STALLED_S)
    return [row["key"] for row in rows]


@asynccontextmanager
async def _started_consumers(
    plan: Plan, servers: ChaosServers, timeline: Timeline
) -> AsyncGenerator[ConsumerGroup | None]:
    if not isinstance(servers, SingleServers):
        yield None
        return
    consumers = ConsumerGroup(servers, timeline, seed=plan.seed)
    try:
        await consumers.start()
        yield consumers
    finally:
        await consumers.close()


def _relay_handlers(relays: Sequence[ServiceSlot], timeline: Timeline) -> Mapping[FaultKind, FaultHandler]:
    faults = ServiceFaults(
        relays,
        timeline,
        kills=FaultKind.RELAY_KILL,
        freezes=(FaultKind.RELAY_FREEZE,),
        restarts=FaultKind.RELAY_RESTART,
    )
    return faults.handlers


def _server_handlers(
    servers: ChaosServers, poisoned: Writer, timeline: Timeline
) -> Mapping[FaultKind, FaultHandler]:
    match servers:
        case SingleServers():
            return SingleServerFaults(servers, poisoned).handlers
        case ClusterServers():
            return ClusterFaults(servers, timeline).handlers
        case _:
            raise TypeError(f"no fault handlers for {servers!r}")


def _patterns(servers: ChaosServers) -> Mapping[Target, FaultPattern]:
    return CLUSTER if isinstance(servers, ClusterServers) else SINGLE_SERVERS


def _relay(plan: Plan, servers: ChaosServers, number: int, timeline: Timeline) -> ServiceSlot:
    name = f"relay-{number}"
    environment = {
        **servers.service_environment(),
        "RELAY_DELIVERY": plan.delivery,
        "RELAY_POLL_INTERVAL": "1",
        "LOG_JSON": "true",
    }
    return ServiceSlot(
        name,
        ("relay", "run"),
        environment=environment,
        log=servers.directory / f"{name}.log",
        timeline=timeline,
    )


def _writer(make: Callable[..., Writer], servers: ChaosServers, number: int) -> Writer:
    keys = [f"writer-{number}-{key}" for key in range(_KEYS_PER_WRITER)]
    # Half of the writers use the services' address: proxy and pooler lose responses to COMMIT too.
    return make(f"writer-{number}", keys, partial(servers.connect, proxied=number % 2 == 1))


async def _inject_faults(plan: Plan, servers: ChaosServers, harness: _Harness) -> None:
    ended = asyncio.Event()
    per_s = _EVENTS_PER_S / len(harness.writers)
    async with asyncio.TaskGroup() as group:
        writing = [group.create_task(writer.run(ended, per_s=per_s)) for writer in harness.writers]
        helpers = [
            group.create_task(harness.prober.run()),
            group.create_task(_skip_poison_repeatedly(servers, harness)),
            group.create_task(_report_progress(plan, servers, harness)),
        ]
        if harness.consumers is not None:
            helpers.append(group.create_task(harness.consumers.replay_repeatedly()))
        try:
            seconds = plan.minutes * 60
            faults = schedule(plan.seed, seconds, _patterns(servers))
            await harness.injector.run(faults, seconds=seconds)
            await asyncio.sleep(max(0.0, seconds - harness.timeline.now_s()))
        finally:
            ended.set()  # also after a failed task: the driver may ignore a writer's cancellation
        await asyncio.gather(*writing)
        await harness.prober.wait_until_written()
        for helper in helpers:
            helper.cancel()


async def _skip_poison_repeatedly(servers: ChaosServers, harness: _Harness) -> None:
    """Skip FAILED poison as an operator does, except of a few keys that wait until the end."""
    while True:
        await asyncio.sleep(_SKIP_EVERY_S)
        await skip_poison(servers, harness.poisoned.keys[:_LEFT_ALONE], harness.timeline)


async def _report_progress(plan: Plan, servers: ChaosServers, harness: _Harness) -> None:
    while True:
        await asyncio.sleep(_PROGRESS_EVERY_S)
        waiting = await retry_while_unavailable(servers, count_unpublished, _STALLED_S)
        faults, results = harness.injector.injected, harness.journal.counts()
        plan.on_progress(
            f"{harness.timeline.now_s() / 60:5.1f} of {plan.minutes:g} min: {sum(faults.values())} faults, "
            f"{results.total():,} events sent, {waiting:,} unpublished"
        )


async def _drain_outbox(servers: ChaosServers, harness: _Harness) -> float | None:
    """Wait until only poison is unpublished, then skip it row by row until the outbox is empty."""
    drain_s = await wait_until_drained(servers, _STALLED_S)
    harness.timeline.note(f"drained: {drain_s}")
    for _ in range(_SKIP_ROUNDS_MAX):
        if drain_s is None or not await skip_poison(servers, [], harness.timeline):
            return drain_s
        if await wait_until_drained(servers, _STALLED_S) is None:
            break
    harness.other_violations.append("keys still blocked after their poison was skipped")
    return drain_s


async def _build_report(
    plan: Plan, servers: ChaosServers, harness: _Harness, drain_s: float | None
) -> Report:
    if drain_s is None:
        harness.other_violations.append(f"outbox not published, and no row for {_STALLED_S:g} s")
    rows = await fetch_rows(servers)
    journal, poison = harness.journal, harness.journal.poison
    windows = servers.lossy_windows if isinstance(servers, ClusterServers) else []
    at_risk = [each for window in windows for each in journal.undecided_between(*window)]
    lost = lost_by_failovers(rows, journal.results, at_risk)
    expected = publishable_events(rows, poison)
    committed, uncommitted = [
        await asyncio.to_thread(
            compare_topic, expected, read_topic(servers.bootstrap_servers, isolation), lost
        )
        for isolation in (Isolation.COMMITTED, Isolation.UNCOMMITTED)
    ]
    if difference := await verify_difference(servers, committed):
        harness.other_violations.append(difference)
    return Report(
        seed=plan.seed,
        minutes=plan.minutes,
        delivery=plan.delivery,
        kinds=kinds_of(_patterns(servers)),
        injected=harness.injector.injected,
        results=journal.counts(),
        committed=len(rows),
        poison=sum(row.event_id in poison for row in rows),
        read_committed=committed,
        read_uncommitted=uncommitted,
        lost_by_postgres=sum(journal.results[each] is CommitResult.ACKNOWLEDGED for each in lost),
        tables=check_tables(rows, journal.results, poison, lost),
        other_violations=harness.other_violations,
        probes=[probe for probe in harness.prober.probes if probe.event_ids.isdisjoint(lost)],
        seen_s=harness.follower.seen_s,
        follower_statistics=harness.follower.statistics,
        drain_s=drain_s,
        unexpected_exits=sum((relay.unexpected_exits for relay in harness.relays), Counter[int]()),
        consumers=None if harness.consumers is None else await _consumer_report(harness.consumers, expected),
    )


async def _consumer_report(
    consumers: ConsumerGroup, published: Mapping[UUID, tuple[str, int]]
) -> ConsumerReport:
    keys = set(consumers.keys)
    expected = {event_id: place for event_id, place in published.items() if place[0] in keys}
    return ConsumerReport(
        effects=compare_effects(expected, await consumers.effects()),
        letters=await consumers.letters(),
        drain_s=consumers.drain_s,
        unexpected_exits=consumers.unexpected_exits(),
    )
