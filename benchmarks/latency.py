"""Measure the time between the HTTP response to a command and the arrival of its event at a Kafka consumer.

Sends single commands to an idle product, one after the other, and measures for each the time from the last
byte of the response until a consumer of ``domain-events`` has received the event. Sender and consumer are in
this process and use the same clock.
"""

import argparse
import asyncio
import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack
from uuid import UUID

from _load import open_loop, percentile
from _stage import drained, running, seed_sessions, servers, show, submit_feedback
from _watch import Watcher


async def measure(port: int, ids: Sequence[UUID], pause_s: float) -> tuple[list[float], list[float]]:
    """Send one command to each session; return the milliseconds accepted → consumed, and sent → accepted."""
    watcher = Watcher()
    watcher.start()
    accepted: dict[str, float] = {}
    http_ms: list[float] = []
    for one in ids:
        load = await open_loop(("127.0.0.1", port), submit_feedback([one]), per_s=1_000, total=1)
        accepted[str(one)] = time.perf_counter()
        load.require_success("the API")
        http_ms.append(load.latencies_s[0] * 1_000)
        await asyncio.sleep(pause_s)
    waits_ms: list[float] = []
    while len(waits_ms) < len(accepted):
        key, at = await asyncio.to_thread(watcher.arrived.get, timeout=30)
        if key in accepted:
            waits_ms.append((at - accepted[key]) * 1_000)
    watcher.stop()
    return waits_ms, http_ms


async def main(commands: int, pause_s: float) -> None:
    """Run the benchmark, and print the figures."""
    async with servers(kafka=True):
        ids = await seed_sessions(commands + 20)
        with ExitStack() as stack:
            port = stack.enter_context(running(["backend"], SERVICE_TYPE="api-gateway"))
            stack.enter_context(running(["backend"], SERVICE_TYPE="message-relay"))
            await drained()
            await measure(port, ids[:20], pause_s)
            waits_ms, http_ms = await measure(port, ids[20:], pause_s)
    figures = {
        "p50_ms": round(percentile(waits_ms, 50), 1),
        "p99_ms": round(percentile(waits_ms, 99), 1),
        "http_p50_ms": round(statistics.median(http_ms), 1),
        "commands": commands,
    }
    rows = [("accepted → consumed, p50", f"{figures['p50_ms']} ms"), ("p99", f"{figures['p99_ms']} ms")]
    rows += [("max", f"{max(waits_ms):.1f} ms"), ("sent → accepted, p50", f"{figures['http_p50_ms']} ms")]
    show(f"Latency of {commands} single commands", rows, figures)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commands", type=int, default=500)
    parser.add_argument("--pause-s", type=float, default=0.05)
    parser.add_argument("--short", action="store_true", help="a hundred commands")
    given = parser.parse_args()
    asyncio.run(main(100 if given.short else given.commands, given.pause_s))
