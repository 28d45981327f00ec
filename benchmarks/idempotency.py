"""Measure the cost of an idempotency key, and the savings of a replay, over HTTP.

Each endpoint gets three kinds of requests: without a key, with new keys, and with keys that have a stored
response. The endpoints are ``SubmitFeedback`` of the product, an endpoint with one INSERT and one event in a
unit of work, and the same endpoint behind ``asgi-idempotency-header`` with Redis. PostgreSQL with fsync, 2
workers with token checks, 32 connections. The kinds take turns in one run; a ratio compares a turn with the
turn without keys in the same round. ``--part expiry``: 500,000 stored responses expire under load, see
``_expiry.py``.
"""

import argparse
import asyncio
import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, Final

from _backlog import connected
from _expiry import expire
from _keyed import CONNECTIONS, SQL, WAYS, Subject, place_order
from _orders import PEER_PACKAGES, PEER_REDIS
from _peers import packages_of, peers_home, redis_server
from _stage import running, seed_sessions, servers, show, submit_feedback
from relaybox.local import LocalPostgres

WORKERS: Final = 2
PARTS: Final = ("commands", "generic", "peer", "expiry")
#: Prefix of the figures of each part.
PREFIXES: Final = {"commands": "", "generic": "generic_", "peer": "peer_"}
UVICORN: Final = [
    *("uvicorn", "--factory", "--app-dir", "benchmarks", "--workers", str(WORKERS)),
    *("--port", "{port}", "--log-level", "warning", "--no-access-log"),
    # Longer than a run: a client that reuses a connection while the server closes it would get an error.
    *("--timeout-worker-healthcheck", "30", "--timeout-keep-alive", "600"),
]


async def subjects(stack: ExitStack, parts: Sequence[str], *, fetch: bool) -> dict[str, Subject]:
    """Start the endpoints of *parts*, and return them by name."""
    found: dict[str, Subject] = {}
    if "commands" in parts:
        ids = await seed_sessions(2_000)
        service = {"SERVICE_TYPE": "api-gateway", "API_WORKERS": str(WORKERS), "KAFKA_PORT": "1"}
        port = stack.enter_context(running(["backend"], **service))
        found["commands"] = Subject(address=("127.0.0.1", port), requests=partial(submit_feedback, ids))
    if "generic" in parts:
        port = stack.enter_context(running([*UVICORN, "_orders:create_orders"]))
        found["generic"] = Subject(address=("127.0.0.1", port), requests=place_order)
    home = peers_home(fetch=fetch) if "peer" in parts else None
    if home is not None:
        redis = str(stack.enter_context(redis_server(home)))
        where = {PEER_PACKAGES: str(packages_of(home)), PEER_REDIS: redis}
        port = stack.enter_context(running([*UVICORN, "_orders:create_orders_peer"], **where))
        found["peer"] = Subject(address=("127.0.0.1", port), requests=place_order)
    return found


async def three_ways(
    postgres: LocalPostgres, parts: Sequence[str], rounds: int, seconds: float, *, fetch: bool
) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Measure the three kinds of requests; return the figures of *parts*, and more rows for the table."""
    with ExitStack() as stack:
        found = await subjects(stack, parts, fetch=fetch)
        async with connected(postgres) as connection:
            for subject in found.values():
                await subject.learn()
            for number in range(-1, rounds):
                # Each round reverses the order; the first round is a warm-up and does not count.
                for subject in found.values():
                    for way in WAYS[:: 1 if number % 2 else -1]:
                        await subject.measure(way, number, seconds, connection)
    figures: dict[str, Any] = {}
    rows: list[tuple[str, str]] = []
    for name, subject in found.items():
        prefix = PREFIXES[name]
        figures |= {f"{prefix}{way}_per_s": round(subject.median(way)) for way in WAYS}
        figures |= {f"{prefix}ratio_{way}": round(subject.ratio(way), 2) for way in WAYS[1:]}
        wal = {way: statistics.median(subject.wal_bytes[way]) for way in WAYS}
        figures[f"{prefix}wal_bytes_per_request"] = round(wal["first"] - wal["plain"])
        rows += [(f"{name}, {way}: WAL bytes of a request", f"{wal[way]:,.0f}") for way in WAYS]
        rows += [
            (f"rounds: {name}, {way}", " ".join(f"{value:,.0f}" for value in subject.per_s[way]))
            for way in WAYS
        ]
    return figures, rows


async def main(parts: Sequence[str], rounds: int, seconds: float, keys: int, *, fetch: bool) -> None:
    """Run the benchmark, and print the figures."""
    figures: dict[str, Any] = {}
    rows: list[tuple[str, str]] = []
    async with servers(kafka=False) as postgres:
        async with connected(postgres) as connection:
            await connection.execute(SQL["create_orders"])
            await connection.execute(SQL["grant_orders"])
        if set(parts) & set(PREFIXES):
            figures, rows = await three_ways(postgres, parts, rounds, seconds, fetch=fetch)
        if "expiry" in parts:
            with running([*UVICORN, "_orders:create_orders"]) as port:
                figures |= await expire(postgres, ("127.0.0.1", port), keys)
    shown = [(name, f"{value:,}") for name, value in figures.items()]
    show(f"Idempotency keys ({WORKERS} workers, {CONNECTIONS} connections)", shown + rows, figures)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--keys", type=int, default=500_000)
    parser.add_argument(
        "--part", choices=PARTS, action="append", help="part to run; may be repeated; by default all"
    )
    parser.add_argument(
        "--short", action="store_true", help="one round of 1 s; asgi-idempotency-header only if installed"
    )
    given = parser.parse_args()
    sizes = (1, 1.0, 5_000) if given.short else (given.rounds, given.seconds, given.keys)
    asyncio.run(main(given.part or PARTS, *sizes, fetch=not given.short))
