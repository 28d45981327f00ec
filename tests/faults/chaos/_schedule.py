"""Which faults come when. Pure: the same seed and length give the same schedule."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Kind(StrEnum):
    """What is done to the system; the value is what the report calls it."""

    RELAY_KILL = "relay killed"
    RELAY_FREEZE = "relay frozen past its lease"
    RELAY_RESTART = "relay stopped in order"
    BROKER_KILL = "broker killed"
    BROKER_RESTART = "broker restarted"
    BROKER_FREEZE = "broker frozen past a stall"
    BROKER_LONG_FREEZE = "broker frozen past the delivery timeout"
    POSTGRES_CRASH = "PostgreSQL stopped immediately"
    BACKENDS_END = "relays' backends terminated"
    KAFKA_CUT = "Kafka link cut"
    KAFKA_DELAY = "Kafka link delayed"
    KAFKA_SWALLOW = "Kafka link swallowing"
    POSTGRES_CUT = "PostgreSQL link cut"
    POSTGRES_DELAY = "PostgreSQL link delayed"
    POSTGRES_SWALLOW = "PostgreSQL link swallowing"
    POISON = "poison row"
    MORE_LANES = "number of lanes doubled"


class Target(StrEnum):
    """What a fault hits. Faults of one target follow one another; those of different targets overlap."""

    RELAYS = "relays"
    BROKER = "broker"
    POSTGRES = "postgres"
    BACKENDS = "backends"
    KAFKA_LINK = "kafka_link"
    POSTGRES_LINK = "postgres_link"
    OUTBOX = "outbox"
    LANES = "lanes"


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """One fault of the schedule."""

    #: Seconds after the start of the run.
    at_s: float
    kind: Kind
    #: Until the killed is started, the frozen goes on, the link is whole again; 0 for what has no length.
    lasts_s: float
    #: From 0 to 1: which relay, which direction, which key; whoever carries the fault out divides it.
    pick: float


@dataclass(frozen=True, kw_only=True, slots=True)
class _Rhythm:
    """How often a target is hit, and by what."""

    #: Seconds from the end of one fault to the start of the next.
    pause_s: tuple[float, float]
    #: Dealt out shuffled, again and again, so that every kind gets its share; with the seconds each may last.
    deck: tuple[tuple[Kind, float, float], ...]


#: An hour of it: about 250 relay kills, 90 broker faults, 90 crashes of PostgreSQL.
_RHYTHMS: Final = {
    Target.RELAYS: _Rhythm(
        pause_s=(3, 12),
        deck=(
            *((Kind.RELAY_KILL, 0.1, 3.0),) * 7,
            (Kind.RELAY_FREEZE, 4.0, 9.0),
            (Kind.RELAY_FREEZE, 6.0, 14.0),
            (Kind.RELAY_RESTART, 0.1, 1.0),
        ),
    ),
    Target.BROKER: _Rhythm(
        pause_s=(14, 38),
        deck=(
            *((Kind.BROKER_KILL, 0.1, 4.0),) * 3,
            *((Kind.BROKER_RESTART, 0.1, 2.0),) * 2,
            *((Kind.BROKER_FREEZE, 6.0, 12.0),) * 2,
            (Kind.BROKER_LONG_FREEZE, 46.0, 52.0),
        ),
    ),
    Target.POSTGRES: _Rhythm(pause_s=(18, 52), deck=((Kind.POSTGRES_CRASH, 0.1, 3.0),)),
    Target.BACKENDS: _Rhythm(pause_s=(8, 30), deck=((Kind.BACKENDS_END, 0.0, 0.0),)),
    Target.KAFKA_LINK: _Rhythm(
        pause_s=(6, 24),
        deck=(
            *((Kind.KAFKA_CUT, 0.0, 0.0),) * 3,
            *((Kind.KAFKA_DELAY, 2.0, 8.0),) * 2,
            *((Kind.KAFKA_SWALLOW, 1.0, 7.0),) * 2,
            (Kind.KAFKA_SWALLOW, 10.0, 14.0),
        ),
    ),
    Target.POSTGRES_LINK: _Rhythm(
        pause_s=(6, 24),
        deck=(
            *((Kind.POSTGRES_CUT, 0.0, 0.0),) * 3,
            *((Kind.POSTGRES_DELAY, 2.0, 8.0),) * 2,
            *((Kind.POSTGRES_SWALLOW, 1.0, 7.0),) * 2,
        ),
    ),
    Target.OUTBOX: _Rhythm(pause_s=(4, 16), deck=((Kind.POISON, 0.0, 0.0),)),
    Target.LANES: _Rhythm(pause_s=(30, 60), deck=((Kind.MORE_LANES, 0.0, 0.0),)),
}
#: Seconds at the start without any fault.
_CALM_S: Final = 3.0


def schedule(seed: int, seconds: float) -> dict[Target, list[Fault]]:
    """The faults of a run of *seconds* seconds, by what they hit, each list in the order of time.

    Every fault ends within the run. It is the schedule that a seed replays; what the processes
    make of it is theirs, and never twice the same.
    """
    return {target: list(_faults(target, rhythm, seed, seconds)) for target, rhythm in _RHYTHMS.items()}


def _faults(target: Target, rhythm: _Rhythm, seed: int, seconds: float) -> Iterator[Fault]:
    dice = random.Random(f"{seed} {target}")
    at_s = _CALM_S
    while True:
        for kind, shortest_s, longest_s in dice.sample(rhythm.deck, len(rhythm.deck)):
            at_s += dice.uniform(*rhythm.pause_s)
            lasts_s, pick = dice.uniform(shortest_s, longest_s), dice.random()
            if at_s >= seconds:
                return
            if at_s + lasts_s < seconds:  # a shorter one of the deck may still fit
                yield Fault(at_s=at_s, kind=kind, lasts_s=lasts_s, pick=pick)
                at_s += lasts_s
