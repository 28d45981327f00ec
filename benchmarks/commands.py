"""Measure durable commands per second over HTTP, of the product and of a FastAPI endpoint with SQLAlchemy.

``SubmitFeedback`` on 2,000 sessions, PostgreSQL with fsync, 2 API workers with token checks, 32 connections.
The contestants take turns in one run; each figure is the median of the rounds.
"""

import argparse
import asyncio
import statistics
from contextlib import ExitStack
from typing import Final

from _load import closed_loop, open_loop, percentile
from _stage import running, seed_sessions, servers, show, submit_feedback

WORKERS: Final = 2
CONNECTIONS: Final = 32


def contestants(stack: ExitStack) -> dict[str, int]:
    """Start the three compared programs (contestants), and return their ports by name."""
    uvicorn = ["uvicorn", "--factory", "--app-dir", "benchmarks", "--workers", str(WORKERS)]
    uvicorn += ["--port", "{port}", "--log-level", "warning", "--no-access-log"]
    uvicorn += ["--timeout-worker-healthcheck", "30"]
    return {
        "relaybox": stack.enter_context(
            running(["backend"], SERVICE_TYPE="api-gateway", API_WORKERS=str(WORKERS), KAFKA_PORT="1")
        ),
        "naive": stack.enter_context(running([*uvicorn, "_contestants:create_naive"])),
        "no_database": stack.enter_context(running([*uvicorn, "_contestants:create_no_database"])),
    }


async def main(rounds: int, seconds: float, sessions: int) -> None:
    """Run the benchmark, and print the figures."""
    async with servers(kafka=False):
        ids = await seed_sessions(sessions)
        with ExitStack() as stack:
            ports = contestants(stack)
            rates: dict[str, list[float]] = {name: [] for name in ports}
            for number in range(-1, rounds):
                # Each round reverses the order; the first round is a warm-up and does not count.
                for name in list(ports)[:: 1 if number % 2 else -1]:
                    load = await closed_loop(
                        ("127.0.0.1", ports[name]),
                        submit_feedback(ids, number),
                        connections=CONNECTIONS,
                        seconds=seconds,
                    )
                    load.require_success(name)
                    if number >= 0:
                        rates[name].append(load.per_s)
            calm = await open_loop(
                ("127.0.0.1", ports["relaybox"]),
                submit_feedback(ids, 99),
                per_s=100,
                total=int(100 * seconds * 2),
            )
            calm.require_success("relaybox")
    figures = figures_of(rates)
    figures["p99_ms_at_100_per_s"] = round(percentile(calm.latencies_s, 99) * 1000, 1)
    rows = [(name, f"{value:,}") for name, value in figures.items()]
    rows += [
        (f"rounds: {name}", " ".join(f"{value:,.0f}" for value in values)) for name, values in rates.items()
    ]
    show(f"Durable commands over HTTP ({WORKERS} workers, {CONNECTIONS} connections)", rows, figures)


def figures_of(rates: dict[str, list[float]]) -> dict[str, float]:
    """Return the medians of the rounds, and of the ratios within a round."""
    per_s = {name: statistics.median(values) for name, values in rates.items()}
    ratios = [ours / naive for ours, naive in zip(rates["relaybox"], rates["naive"], strict=True)]
    bare = [ours / none for ours, none in zip(rates["relaybox"], rates["no_database"], strict=True)]
    return {
        "relaybox_per_s": round(per_s["relaybox"]),
        "naive_per_s": round(per_s["naive"]),
        "no_database_per_s": round(per_s["no_database"]),
        "ratio_naive": round(statistics.median(ratios), 2),
        "ratio_no_database": round(statistics.median(bare), 2),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--sessions", type=int, default=2_000)
    parser.add_argument("--short", action="store_true", help="two rounds of two seconds")
    given = parser.parse_args()
    rounds, seconds = (2, 2.0) if given.short else (given.rounds, given.seconds)
    asyncio.run(main(rounds, seconds, given.sessions))
