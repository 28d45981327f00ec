"""A muse without a network: proposals composed from a phrase bank, the same for the same brief."""

import asyncio
from dataclasses import dataclass

from shared_types.genesis import Proposal

from backend.genesis.muse._compose import compose
from backend.genesis.muse._muse import Brief, Progress

__all__ = ["OfflineMuse"]

_STEPS_PERCENT = (10.0, 35.0, 60.0, 85.0)


@dataclass(frozen=True, kw_only=True)
class OfflineMuse:
    """Composes in the writer's language, English or Chinese, and needs nothing but its phrase bank.

    pace_s: seconds of thinking before each step of progress; 0 composes at once, a demo may take its time.
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
