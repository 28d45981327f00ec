"""What a muse is: it is given a brief, tells how far it is, and returns a proposal."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from shared_types.genesis import AnyContent, Feedback, GenesisStage, Preferences, Proposal

from backend.genesis.muse._errors import MuseBriefIncomplete

__all__ = ["Brief", "Muse", "Progress"]

Progress = Callable[[float], Awaitable[None]]
"""Told how far a muse is, in percent from 0 to 100; never less than it was told before."""

Content = TypeVar("Content", bound=AnyContent)


@dataclass(frozen=True, kw_only=True)
class Brief:
    """All a muse may know when it proposes.

    stage: what is to be proposed.
    preferences: what the writer asked for; notes of the request at hand belong here, too.
    confirmed: the contents of all earlier stages.
    feedback: what the writer said about earlier proposals for this stage, oldest first.
    seed: ties a proposal to one request, so that a request taken over by another agent ends the same.
    """

    stage: GenesisStage
    preferences: Preferences = field(default_factory=Preferences)
    confirmed: Mapping[GenesisStage, AnyContent] = field(default_factory=dict[GenesisStage, AnyContent])
    feedback: tuple[Feedback, ...] = ()
    seed: str

    def content(self, model: type[Content]) -> Content:
        """The confirmed content of this kind.

        Raises:
            MuseBriefIncomplete: that stage has not been confirmed.
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
        """A proposal for the brief's stage, valid by that stage's model.

        Raises:
            MuseError: there is no proposal; the error's code says why.
        """
        ...
