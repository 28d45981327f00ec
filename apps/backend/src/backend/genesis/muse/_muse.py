"""The interface of muses: a brief goes in, progress is reported, a proposal comes back."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from shared_types.genesis import AnyContent, Feedback, GenesisStage, Preferences, Proposal

from backend.genesis.muse._errors import MuseBriefIncomplete

__all__ = ["Brief", "Muse", "Progress"]

Progress = Callable[[float], Awaitable[None]]
"""Receives the progress of a muse in percent, from 0 to 100; never decreases."""

Content = TypeVar("Content", bound=AnyContent)


@dataclass(frozen=True, kw_only=True)
class Brief:
    """The input of a muse.

    stage: the stage to propose for.
    preferences: the writer's preferences, with the notes of this request.
    confirmed: the contents of all earlier stages.
    feedback: the writer's feedback on earlier proposals for this stage, oldest first.
    seed: identifies the request, so that another agent that takes it over makes the same proposal.
    """

    stage: GenesisStage
    preferences: Preferences = field(default_factory=Preferences)
    confirmed: Mapping[GenesisStage, AnyContent] = field(default_factory=dict[GenesisStage, AnyContent])
    feedback: tuple[Feedback, ...] = ()
    seed: str

    def content(self, model: type[Content]) -> Content:
        """Return the confirmed content that is a *model*.

        Raises:
            MuseBriefIncomplete: The stage with this type of content is not confirmed.
        """
        for content in self.confirmed.values():
            if isinstance(content, model):
                return content
        raise MuseBriefIncomplete(
            f"a proposal for {self.stage} builds on a confirmed {model.__name__}; confirm that stage first"
        )


class Muse(Protocol):
    """Proposes the content of a stage."""

    async def propose(self, brief: Brief, progress: Progress) -> Proposal:
        """Return a valid proposal for the stage of the brief.

        Raises:
            MuseError: There is no proposal; the error code is the reason.
        """
        ...
