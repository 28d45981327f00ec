"""What hears of the story while it is told."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

from backend.demo._timeline import StepMissed

__all__ = ("listening",)


@asynccontextmanager
async def listening(*listeners: Coroutine[Any, Any, None]) -> AsyncGenerator[None]:
    """Run *listeners*, which never end by themselves, for the time of the context.

    Raises:
        StepMissed: one broke, and the story had to miss what it would have heard.
    """
    tasks = [asyncio.create_task(one) for one in listeners]
    try:
        yield
    except StepMissed as missed:
        broken = await _stopped(tasks)
        raise missed if broken is None else StepMissed(f"{missed} (listening broke: {broken})") from broken
    finally:
        await _stopped(tasks)


async def _stopped(tasks: Sequence[asyncio.Task[None]]) -> Exception | None:
    """Stop *tasks*; what broke the first of those that broke."""
    for task in tasks:
        task.cancel()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    return next((one for one in ended if isinstance(one, Exception)), None)
