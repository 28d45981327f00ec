"""The story of a guided run: the run requests the proposals, and the writer only decides."""

from collections.abc import Mapping
from typing import Any, Final

from shared_types.genesis import GenesisStage

from backend.demo._novel import EVENT, NovelStory, summary

__all__ = ("GuidedStory",)

_STAGES: Final = list(GenesisStage)[:-1]


class GuidedStory(NovelStory):
    """Runs the story of one session with a guided run; see :class:`NovelStory`."""

    async def _play(self, preferences: Mapping[str, Any], feedback: str) -> None:
        await self._complete("StartGuidedRun", "GuidedRunCreated", f"{dict(preferences)}", **preferences)
        self._seen = 0
        for stage in _STAGES:
            await self._show_proposal(stage)
            if stage is _STAGES[0]:
                await self._complete("SubmitFeedback", "FeedbackSubmitted", feedback, feedback=feedback)
                await self._show_proposal(stage)
            await self._confirm(stage)
        await self._log.wait_streamed(f"{EVENT}GuidedRunFinished")

    async def _show_proposal(self, stage: GenesisStage) -> None:
        """Wait for the next proposal, which no command of the writer has requested."""
        name = "ConceptProposed" if stage is _STAGES[0] else "StageProposed"
        proposed = await self._log.wait_streamed(f"{EVENT}{name}", after=self._seen)
        self._seen = proposed["version"]
        options = proposed["payload"]["proposal"]["options"]
        self._show("agent", f"proposed {stage}, requested by the run", summary(options[0]))
