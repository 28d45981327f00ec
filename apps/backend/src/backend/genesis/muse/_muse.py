"""The interface of muses, which produce the proposals of an agent."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from shared_types.genesis import AnyContent, Feedback, GenesisStage, Preferences, Proposal

from backend.genesis.muse._errors import MuseBriefIncomplete

__all__ = ["Brief", "Muse", "Progress"]

Progress = Callable[[float], Awaitable[None]]
"""A function that a muse calls with its progress in percent, from 0 to 100, never decreasing."""

Content = TypeVar("Content", bound=AnyContent)


@dataclass(frozen=True, kw_only=True)
class Brief:
    """The input of a muse.

    stage: the stage for which content is proposed.
    preferences: the writer's preferences, with the notes of this request.
    confirmed: the confirmed contents of all earlier stages, by stage.
    feedback: the writer's feedback on earlier proposals for this stage, oldest first.
    seed: the id of the request. A repeated attempt has the same seed, so the offline muse composes the
        same proposal again.
    """

    stage: GenesisStage
    preferences: Preferences = field(default_factory=Preferences)
    confirmed: Mapping[GenesisStage, AnyContent] = field(default_factory=dict[GenesisStage, AnyContent])
    feedback: tuple[Feedback, ...] = ()
    seed: str

    def content(self, model: type[Content]) -> Content:
        """Return the confirmed content of the type *model*; each stage has another type.

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
        """Return a valid proposal for the stage of *brief*; call *progress* meanwhile.

        Raises:
            MuseError: The muse cannot produce a proposal; each reason has its own class and error code.
        """
        ...
