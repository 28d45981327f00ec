"""Measure how much the notifier reduces the number of commands per second (G28)."""

import asyncio
import mmap
import statistics
import tempfile
from typing import Any, Final

from _backlog import connected
from _load import closed_loop
from _stage import running, seed_sessions, submit_feedback
from relaybox.outbox import OUTBOX_CHANNEL

__all__ = ("SWITCH", "notifier_figures")

#: Environment variable with the name of the switch's file; see ``_contestants.create_switched``.
SWITCH: Final = "BENCH_SWITCH"
_ON: Final = b"1"
_OFF: Final = b"0"
_WORKERS: Final = 2
_CONNECTIONS: Final = 32
_SESSIONS: Final = 2_000
_SLICE_S: Final = 1.5
#: States of the switch in one turn. Short alternating slices, so that changes of the machine's load affect
#: both states.
_TURNS: Final = (_ON, _OFF, _OFF, _ON)


async def notifier_figures(turns: int) -> dict[str, Any]:
    """Return commands per second with and without the notifier, of one API under a closed loop."""
    ids = await seed_sessions(_SESSIONS)
    with tempfile.NamedTemporaryFile() as file:
        file.write(_OFF)
        file.flush()
        switch = mmap.mmap(file.fileno(), 1)
        uvicorn = ["uvicorn", "--factory", "--app-dir", "benchmarks", "--workers", str(_WORKERS)]
        uvicorn += ["--port", "{port}", "--log-level", "warning", "--no-access-log"]
        uvicorn += ["--timeout-worker-healthcheck", "30", "_contestants:create_switched"]
        with running(uvicorn, **{SWITCH: file.name, "KAFKA_PORT": "1"}) as port:
            await _require_switch(port, switch, ids)
            ratios: list[float] = []
            on_per_s: list[float] = []
            for number in range(turns):
                rate = {_ON: 0.0, _OFF: 0.0}
                for position in _TURNS:
                    switch[:1] = position
                    rate[position] += await _commands_per_s(port, ids, number) / _TURNS.count(position)
                ratios.append(rate[_ON] / rate[_OFF])
                on_per_s.append(rate[_ON])
    return {
        "notifier_ratio": round(statistics.median(ratios), 3),
        "commands_with_notifier_per_s": round(statistics.median(on_per_s)),
        "notifier_ratios": [round(ratio, 3) for ratio in ratios],
    }


async def _commands_per_s(port: int, ids: Any, number: int, seconds: float = _SLICE_S) -> float:
    requests = submit_feedback(ids, number)
    load = await closed_loop(("127.0.0.1", port), requests, connections=_CONNECTIONS, seconds=seconds)
    load.require_success("the API")
    return load.per_s


async def _require_switch(port: int, switch: mmap.mmap, ids: Any) -> None:
    """Warm up the API, and check that the switch turns notifications on and off."""
    heard: list[str] = []
    async with connected() as connection:

        def hear(_connection: Any, _pid: int, _channel: str, payload: str) -> None:
            heard.append(payload)

        await connection.add_listener(OUTBOX_CHANNEL, hear)
        for position in (_ON, _OFF):
            switch[:1] = position
            await asyncio.sleep(0.1)
            heard.clear()
            await _commands_per_s(port, ids, -1, 2.0)
            assert bool(heard) == (position == _ON), f"{len(heard)} notifications at switch {position!r}"
