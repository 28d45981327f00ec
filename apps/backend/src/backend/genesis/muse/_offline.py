"""A muse without a network: composes proposals from a phrase bank, the same proposal for the same brief."""

import asyncio
from dataclasses import dataclass

from shared_types.genesis import Proposal

from backend.genesis.muse._compose import compose
from backend.genesis.muse._muse import Brief, Progress

__all__ = ["OfflineMuse"]

_STEPS_PERCENT = (10.0, 35.0, 60.0, 85.0)


@dataclass(frozen=True, kw_only=True)
class OfflineMuse:
    """Composes proposals in the writer's language, English or Chinese.

    pace_s: seconds to wait before each call of ``progress``; more than 0 lets a demo show the progress.
    """

    pace_s: float = 0.0

    async def propose(self, brief: Brief, progress: Progress) -> Proposal:
        """Return a valid proposal for the stage of *brief*.

        Raises:
            MuseBriefIncomplete: The proposal needs the content of an earlier stage that is not confirmed.
        """
        proposal = compose(brief)
        for percent in _STEPS_PERCENT:
            await asyncio.sleep(self.pace_s)
            await progress(percent)
        await progress(100.0)
        return proposal
