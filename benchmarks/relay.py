"""Measure the publishing of a backlog: its speed, the cost per event, several relays, and notifications.

200,000 events of 600 bytes, 1,000 keys, 8 partitions, PostgreSQL with fsync, one Kafka broker, all on one
machine. The contestants are the relay with ExactlyOnce and with AtLeastOnce, and two bare programs of
``_bare.py``: (a) a loop that selects, produces and marks rows, and (b) a producer alone. All four take turns;
each figure is the median of the rounds. The exit code is 1 if the comparison is not valid: (a) must reach
0.35 × (b), and all contestants must have written the same records.
"""

import argparse
import asyncio
import statistics
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final

from _backlog import SHORT_DRAINS, TOPIC, Backlog, Drained, relays
from _bare import run_contestant
from _notifier import notifier_figures
from _process import counting_proxy, peak_mb
from _stage import servers, show
from _watch import digest_of
from relaybox.settings import PostgresSettings, load_settings

LOOP: Final = "bare_loop"
PRODUCER: Final = "bare_producer"
DELIVERIES: Final = {"exactly_once": "exactly-once", "at_least_once": "at-least-once"}
#: Minimum ratio of the loop's speed to the producer's. A comparison with a slower loop would show nothing.
VALID_RATIO: Final = 0.35
RELAYS: Final = (1, 2, 4)
#: Number of sequences on, off, off, on of the notifier's switch in a round.
_TURNS_PER_ROUND: Final = 4
_SHORT_TURNS: Final = 1

Rates = dict[str, list[float]]


async def drain_figures(backlog: Backlog, rounds: int) -> dict[str, Any]:
    """Return the figures of all contestants, which publish the same backlog in turns."""
    rates: Rates = {name: [] for name in (*DELIVERIES, LOOP, PRODUCER)}
    drained: dict[str, list[Drained]] = {name: [] for name in DELIVERIES}
    figures = await _warmed_up(backlog)
    for number in range(rounds):
        for name in list(rates)[:: 1 if number % 2 else -1]:
            if name in DELIVERIES:
                done = await _drained(backlog, name)
                drained[name].append(done)
                rates[name].append(done.per_s)
            else:
                rates[name].append(await _bare(backlog, name))
    figures |= {f"{name}_per_s": round(statistics.median(values)) for name, values in rates.items()}
    figures |= {f"ratio_{name}": _ratio(rates[name], rates[LOOP]) for name in DELIVERIES}
    figures["ratio_bare_loop_to_producer"] = _ratio(rates[LOOP], rates[PRODUCER])
    for name, done in drained.items():
        tail = "" if name == "exactly_once" else f"_{name}"
        figures[f"wal_bytes_per_event{tail}"] = round(_median(done, lambda one: one.wal_bytes_per_event))
        figures[f"cpu_us_per_event{tail}"] = round(_median(done, lambda one: one.cpu_us_per_event), 1)
    figures |= {f"rounds_{name}": [round(value) for value in values] for name, values in rates.items()}
    return figures


async def _warmed_up(backlog: Backlog) -> dict[str, Any]:
    """Run a first, untimed round: count round trips and dead row versions, and compare the records."""
    figures: dict[str, Any] = {}
    digests: dict[str, tuple[int, int]] = {}
    for name in DELIVERIES:
        tail = "" if name == "exactly_once" else f"_{name}"
        dead = await backlog.dead_tuples()
        with (
            counting_proxy(load_settings(PostgresSettings).port) as (port, counter),
            relays(1, DELIVERIES[name], POSTGRES_PORT=str(port)) as running,
        ):
            await backlog.shared_by(1)
            before = counter.asked
            await backlog.drain(running)
            asked = counter.asked - before
        dead = await backlog.dead_tuples() - dead
        figures[f"round_trips_per_event{tail}"] = round(asked / backlog.events, 5)
        figures[f"dead_tuples_per_event{tail}"] = round(dead / backlog.events, 4)
        digests[name] = await asyncio.to_thread(digest_of, TOPIC)
    for name in (LOOP, PRODUCER):
        await _bare(backlog, name)
        digests[name] = await asyncio.to_thread(digest_of, TOPIC)
    if len(set(digests.values())) > 1 or digests[LOOP][0] != backlog.events:
        raise SystemExit(f"not valid: the contestants wrote different records: {digests}")
    return figures


async def _drained(backlog: Backlog, name: str, count: int = 1) -> Drained:
    with relays(count, DELIVERIES[name]) as running:
        await backlog.shared_by(count)
        return await backlog.drain(running)


async def _bare(backlog: Backlog, name: str) -> float:
    await backlog.fill(plain=True)
    return backlog.events / await run_contestant(name.removeprefix("bare_"))


async def sharing_figures(backlog: Backlog, rounds: int) -> dict[str, Any]:
    """Return events per second of 1, 2 and 4 relays with ExactlyOnce."""
    rates: dict[int, list[float]] = {count: [] for count in RELAYS}
    for number in range(rounds):
        for count in RELAYS[:: 1 if number % 2 else -1]:
            rates[count].append((await _drained(backlog, "exactly_once", count)).per_s)
    figures = {f"relays_{count}_per_s": round(statistics.median(values)) for count, values in rates.items()}
    return figures | {f"ratio_relays_{count}": _ratio(rates[count], rates[1]) for count in RELAYS[1:]}


async def memory_figures(backlog: Backlog) -> dict[str, Any]:
    """Return the maximum resident memory (MB) of a relay while it publishes a backlog."""
    with relays(1, DELIVERIES["exactly_once"]) as running:
        await backlog.shared_by(1)
        await backlog.drain(running)
        return {"relay_peak_rss_mb": round(peak_mb(running[0].pid)), "rss_pending": backlog.events}


def _median(done: Sequence[Drained], read: Callable[[Drained], float]) -> float:
    return statistics.median(map(read, done))


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the median over the rounds of the ratio of *ours* to *theirs*."""
    return round(statistics.median(one / other for one, other in zip(ours, theirs, strict=True)), 2)


async def main(parts: Sequence[str], rounds: int, events: int, memory_events: int, *, short: bool) -> bool:
    """Run the benchmark, print the figures, and return whether the comparison is valid."""
    figures: dict[str, Any] = {}
    async with servers(kafka=True) as postgres:
        works: Mapping[str, Callable[[Backlog], Coroutine[Any, Any, dict[str, Any]]]] = {
            "drain": lambda backlog: drain_figures(backlog, rounds),
            "sharing": lambda backlog: sharing_figures(backlog, rounds),
        }
        async with Backlog.made(postgres, events=events) as backlog:
            if works.keys() & set(parts):
                await (backlog.warm_broker(SHORT_DRAINS) if short else backlog.warm_broker())
            for part in works.keys() & set(parts):
                figures |= await works[part](backlog)
        if "memory" in parts:
            async with Backlog.made(postgres, events=memory_events) as backlog:
                figures |= await memory_figures(backlog)
        if "notifier" in parts:
            figures |= await notifier_figures(_SHORT_TURNS if short else rounds * _TURNS_PER_ROUND)
    rows = [(name, f"{value:,}" if isinstance(value, int) else str(value)) for name, value in figures.items()]
    show(f"A backlog of {events:,} events", rows, figures)
    return figures.get("ratio_bare_loop_to_producer", VALID_RATIO) >= VALID_RATIO


PARTS: Final = ("drain", "sharing", "memory", "notifier")

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--memory-events", type=int, default=1_000_000)
    parser.add_argument(
        "--part", choices=PARTS, action="append", help="part to run; may be repeated; by default all"
    )
    parser.add_argument("--short", action="store_true", help="one round of 20,000 events")
    given = parser.parse_args()
    sizes = (1, 20_000, 20_000) if given.short else (given.rounds, given.events, given.memory_events)
    valid = asyncio.run(main(given.part or PARTS, *sizes, short=given.short))
    if not valid and not given.short:  # one short round is too little for this check
        raise SystemExit(f"not valid: the bare loop does not reach {VALID_RATIO} of the bare producer")
