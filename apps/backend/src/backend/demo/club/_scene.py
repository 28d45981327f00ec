"""One study of the club, and who is with it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from shared_types.workspace import WorkspaceEvent

from backend.demo.club._member import Member
from backend.demo.club._witness import Witness

__all__ = ("People", "Scene")


@dataclass(frozen=True, kw_only=True, slots=True)
class People:
    """Who is in the story."""

    #: Makes everything, and so owns it.
    teacher: Member
    #: Becomes an editor of the folder, and so of the studies in it.
    coach: Member
    #: Becomes a commenter of one study.
    pupil: Member
    #: Has no token; reads by a link.
    guest: Member


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """What every part of the story has before it."""

    people: People
    witness: Witness
    #: Where the studies are.
    folder_id: str
    study_id: str
    #: The timeline's.
    say: Callable[..., None]

    @property
    def path(self) -> str:
        """Of the study."""
        return f"/studies/{self.study_id}"

    async def version(self) -> int:
        """The study's, for a change of it."""
        return (await self.people.teacher.get("read the study", self.path))["version"]

    async def chapter(self) -> Mapping[str, Any]:
        """The study's first, with its moves."""
        teacher = self.people.teacher
        study = await teacher.get("read the study", self.path)
        return await teacher.get("read a chapter", f"{self.path}/chapters/{study['chapters'][0]['id']}")

    async def told(self, type_: WorkspaceEvent) -> None:
        """Wait for what the live stream says of it.

        Raises:
            StepMissed: it says nothing, or there is a gap before.
        """
        told = await self.witness.told(type_)
        self.say("stream", f"{told['event_type']}, id {told['version']}")
