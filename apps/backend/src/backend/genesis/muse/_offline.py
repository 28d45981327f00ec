"""A muse without a network: composes proposals from a phrase bank, always the same for a brief."""

import asyncio
from dataclasses import dataclass

from shared_types.genesis import Proposal

from backend.genesis.muse._compose import compose
from backend.genesis.muse._muse import Brief, Progress

__all__ = ["OfflineMuse"]

_STEPS_PERCENT = (10.0, 35.0, 60.0, 85.0)


@dataclass(frozen=True, kw_only=True)
class OfflineMuse:
    """Composes in the writer's language, English or Chinese.

    pace_s: seconds before each step of progress; 0 for no delay, more for a demo.
    """

    pace_s: float = 0.0

    async def propose(self, brief: Brief, progress: Progress) -> Proposal:
        """See `Muse.propose`; the only error is MuseBriefIncomplete."""
        proposal = compose(brief)
        for percent in _STEPS_PERCENT:
            await asyncio.sleep(self.pace_s)
            await progress(percent)
        await progress(100.0)
        return proposal
