"""The faults of a run and their times, a pure function of seed and duration."""

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class FaultKind(StrEnum):
    """A kind of fault; the value is its name in the report."""

    RELAY_KILL = "relay killed"
    RELAY_FREEZE = "relay frozen past its lease"
    RELAY_RESTART = "relay stopped in order"
    BROKER_KILL = "broker killed"
    BROKER_RESTART = "broker restarted"
    BROKER_FREEZE = "broker frozen past a stall"
    BROKER_LONG_FREEZE = "broker frozen past the delivery timeout"
    BROKERS_ROLL = "brokers restarted one after the other"
    POSTGRES_CRASH = "PostgreSQL stopped immediately"
    PROMOTION = "synchronous standby promoted"
    LOSSY_PROMOTION = "lagging standby promoted"
    POOLER_RESTART = "PgBouncer killed and started"
    BACKENDS_END = "PostgreSQL backends terminated"
    KAFKA_CUT = "Kafka link cut"
    KAFKA_DELAY = "Kafka link delayed"
    KAFKA_DROP = "Kafka link dropping bytes"
    POSTGRES_CUT = "PostgreSQL link cut"
    POSTGRES_DELAY = "PostgreSQL link delayed"
    POSTGRES_DROP = "PostgreSQL link dropping bytes"
    POISON = "poison row"
    MORE_LANES = "number of lanes doubled"
    CONSUMER_KILL = "consumer killed"
    CONSUMER_PAUSE = "consumer frozen for less than its session"
    CONSUMER_FREEZE = "consumer frozen past its session"
    CONSUMER_RESTART = "consumer stopped in order"
    CONSUMER_JOIN = "consumer joined and left"
    CONSUMER_POISON = "keys whose events fail in consumers"


class Target(StrEnum):
    """The target of a fault. Faults of one target are sequential; those of different targets overlap."""

    RELAYS = "relays"
    BROKER = "broker"
    POSTGRES = "postgres"
    POOLER = "pooler"
    BACKENDS = "backends"
    KAFKA_LINK = "kafka_link"
    POSTGRES_LINK = "postgres_link"
    OUTBOX = "outbox"
    LANES = "lanes"
    CONSUMERS = "consumers"
    GROUP = "group"
    CONSUMED_KEYS = "consumed_keys"


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """One fault of the schedule."""

    #: Seconds after the start of the run.
    at_s: float
    kind: FaultKind
    #: Seconds until restart, resumption or repair; 0 for an instantaneous fault.
    lasts_s: float
    #: From 0 to 1: the handler derives the relay, direction or key from it.
    pick: float


@dataclass(frozen=True, kw_only=True, slots=True)
class FaultPattern:
    """The frequency and the kinds of a target's faults."""

    #: Seconds from the end of one fault to the start of the next.
    pause_s: tuple[float, float]
    #: Kinds with minimum and maximum duration in seconds, used in repeated random order, so that each occurs.
    choices: tuple[tuple[FaultKind, float, float], ...]


_RELAYS: Final = FaultPattern(
    pause_s=(3, 12),
    choices=(
        *((FaultKind.RELAY_KILL, 0.1, 3.0),) * 7,
        (FaultKind.RELAY_FREEZE, 4.0, 9.0),
        (FaultKind.RELAY_FREEZE, 6.0, 14.0),
        (FaultKind.RELAY_RESTART, 0.1, 1.0),
    ),
)
#: One PostgreSQL and one broker. An hour: about 250 relay kills, 90 broker faults, 90 crashes of PostgreSQL,
#: 110 consumer kills, 40 freezes of a consumer past its session, 120 times poisoned keys.
SINGLE_SERVERS: Final[Mapping[Target, FaultPattern]] = {
    Target.RELAYS: _RELAYS,
    Target.BROKER: FaultPattern(
        pause_s=(14, 38),
        choices=(
            *((FaultKind.BROKER_KILL, 0.1, 4.0),) * 3,
            *((FaultKind.BROKER_RESTART, 0.1, 2.0),) * 2,
            *((FaultKind.BROKER_FREEZE, 6.0, 12.0),) * 2,
            (FaultKind.BROKER_LONG_FREEZE, 46.0, 52.0),
        ),
    ),
    Target.POSTGRES: FaultPattern(pause_s=(18, 52), choices=((FaultKind.POSTGRES_CRASH, 0.1, 3.0),)),
    Target.BACKENDS: FaultPattern(pause_s=(8, 30), choices=((FaultKind.BACKENDS_END, 0.0, 0.0),)),
    Target.KAFKA_LINK: FaultPattern(
        pause_s=(6, 24),
        choices=(
            *((FaultKind.KAFKA_CUT, 0.0, 0.0),) * 3,
            *((FaultKind.KAFKA_DELAY, 2.0, 8.0),) * 2,
            *((FaultKind.KAFKA_DROP, 1.0, 7.0),) * 2,
            (FaultKind.KAFKA_DROP, 10.0, 14.0),
        ),
    ),
    Target.POSTGRES_LINK: FaultPattern(
        pause_s=(6, 24),
        choices=(
            *((FaultKind.POSTGRES_CUT, 0.0, 0.0),) * 3,
            *((FaultKind.POSTGRES_DELAY, 2.0, 8.0),) * 2,
            *((FaultKind.POSTGRES_DROP, 1.0, 7.0),) * 2,
        ),
    ),
    Target.OUTBOX: FaultPattern(pause_s=(4, 16), choices=((FaultKind.POISON, 0.0, 0.0),)),
    Target.LANES: FaultPattern(pause_s=(30, 60), choices=((FaultKind.MORE_LANES, 0.0, 0.0),)),
    Target.CONSUMERS: FaultPattern(
        pause_s=(6, 20),
        choices=(
            *((FaultKind.CONSUMER_KILL, 0.1, 6.0),) * 5,
            (FaultKind.CONSUMER_PAUSE, 1.0, 4.0),
            *((FaultKind.CONSUMER_FREEZE, 8.0, 16.0),) * 2,
            *((FaultKind.CONSUMER_RESTART, 0.1, 2.0),) * 2,
        ),
    ),
    Target.GROUP: FaultPattern(pause_s=(8, 30), choices=((FaultKind.CONSUMER_JOIN, 8.0, 30.0),)),
    # Four attempts of a handler take 7 s: shorter faults end before the event is parked.
    Target.CONSUMED_KEYS: FaultPattern(
        pause_s=(2, 10),
        choices=(
            (FaultKind.CONSUMER_POISON, 1.0, 8.0),
            *((FaultKind.CONSUMER_POISON, 8.0, 20.0),) * 2,
            (FaultKind.CONSUMER_POISON, 20.0, 40.0),
        ),
    ),
}
#: Three brokers, a primary with a standby, PgBouncer. An hour: about 240 relay kills, 75 broker kills,
#: 45 broker freezes, 60 promotions (30 of a lagging standby), 90 kills of PgBouncer.
CLUSTER: Final[Mapping[Target, FaultPattern]] = {
    Target.RELAYS: _RELAYS,
    Target.BROKER: FaultPattern(
        pause_s=(8, 24),
        choices=(
            *((FaultKind.BROKER_KILL, 0.1, 20.0),) * 5,
            *((FaultKind.BROKER_FREEZE, 1.0, 6.0), (FaultKind.BROKER_FREEZE, 6.0, 15.0)),
            (FaultKind.BROKER_FREEZE, 10.0, 30.0),
            (FaultKind.BROKERS_ROLL, 0.1, 2.0),
        ),
    ),
    Target.POSTGRES: FaultPattern(
        pause_s=(20, 100), choices=((FaultKind.PROMOTION, 0.0, 0.0), (FaultKind.LOSSY_PROMOTION, 0.1, 6.0))
    ),
    Target.POOLER: FaultPattern(pause_s=(15, 60), choices=((FaultKind.POOLER_RESTART, 0.1, 3.0),)),
}
#: Seconds without faults at the start.
_CALM_S: Final = 3.0


def schedule(
    seed: int, seconds: float, patterns: Mapping[Target, FaultPattern] = SINGLE_SERVERS
) -> dict[Target, list[Fault]]:
    """Return the faults of a run of *seconds* by target, in order of time.

    Every fault ends within the run. A seed replays the schedule, not the reactions of the processes.
    """
    return {target: list(_faults(target, pattern, seed, seconds)) for target, pattern in patterns.items()}


def _faults(target: Target, pattern: FaultPattern, seed: int, seconds: float) -> Iterator[Fault]:
    rng = random.Random(f"{seed} {target}")
    at_s = _CALM_S
    while True:
        for kind, shortest_s, longest_s in rng.sample(pattern.choices, len(pattern.choices)):
            at_s += rng.uniform(*pattern.pause_s)
            lasts_s, pick = rng.uniform(shortest_s, longest_s), rng.random()
            if at_s >= seconds:
                return
            if at_s + lasts_s < seconds:  # a shorter choice may still fit
                yield Fault(at_s=at_s, kind=kind, lasts_s=lasts_s, pick=pick)
                at_s += lasts_s


def kinds_of(patterns: Mapping[Target, FaultPattern]) -> list[FaultKind]:
    """Return the kinds of faults in *patterns*, in the order of the enumeration."""
    present = {kind for pattern in patterns.values() for kind, _, _ in pattern.choices}
    return [kind for kind in FaultKind if kind in present]
