"""The story itself: from an empty club to all games in a zip, every step seen from outside."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import uuid4

import httpx2
from relaybox_types.envelope import EventEnvelope
from shared_types.workspace import WorkspaceEvent

from backend.demo._expect import require
from backend.demo._journal import place_of
from backend.demo._listening import listening
from backend.demo._stream import follow
from backend.demo._timeline import Timeline, chain_tree
from backend.demo._topic import Topic
from backend.demo.club._export import export
from backend.demo.club._games import GAMES, club_match
from backend.demo.club._keeping import change_and_go_back, delete, restore
from backend.demo.club._member import PREFIX
from backend.demo.club._scene import People, Scene
from backend.demo.club._together import answer, ask, open_link, share
from backend.demo.club._witness import Witness

__all__ = ("ClubStory",)

#: Chapters of a study; more make a folder of studies.
_CHAPTERS_MAX: Final = 64
#: Of the chain that is shown in the end.
_CHAPTERS_SHOWN: Final = 2


class ClubStory:
    """Tells it on *timeline*, as far as *witness* hears of it."""

    def __init__(self, timeline: Timeline, people: People, topic: Topic, witness: Witness) -> None:
        self._timeline, self._say = timeline, timeline.say
        self._people, self._teacher = people, people.teacher
        self._topic = topic
        self._witness = witness

    async def tell(self) -> None:
        """Tell it to its end.

        Raises:
            StepMissed: a step did not happen; names it.
        """
        pgn = club_match()
        async with listening(self._topic.listen(self._witness.journal)):
            root_id = await self._create()
            report = await self._import(root_id, pgn)
            nodes = [report["folder_id"], *(one["id"] for one in report["studies"])]
            scene = Scene(
                people=self._people,
                witness=self._witness,
                folder_id=nodes[0],
                study_id=nodes[1],
                say=self._say,
            )
            path = f"{PREFIX}/nodes/{scene.study_id}/events"
            async with listening(follow(self._teacher.client, path, self._witness.live)):
                await _happen(scene, pgn)
                await self._finish([root_id, *nodes], scene.study_id)

    async def _create(self) -> str:
        body = {"kind": "workspace", "title": "Chess club"}
        made = await self._teacher.ask("create a workspace", "POST", "/nodes", 201, body)
        root_id = made.json()["id"]
        self._say("teacher", f"create a workspace → 201 {root_id}")
        [created] = await self._witness.published(root_id, 1)
        self._say("relay", f"published {created.event.event_type}", place_of(created))
        return root_id

    async def _import(self, root_id: str, pgn: str) -> Mapping[str, Any]:
        query = httpx2.QueryParams(title="Club match", parent_id=root_id)
        what, path, key = f"import {GAMES} games", f"/studies/import-pgn?{query}", str(uuid4())
        first = await self._teacher.ask(what, "POST", path, 201, pgn.encode(), key=key)
        report = first.json()
        sizes = [one["chapters"] for one in report["studies"]]
        wanted = [_CHAPTERS_MAX, GAMES - _CHAPTERS_MAX]
        all_in = (sizes, report["skipped_count"]) == (wanted, 0) and report["folder_id"] is not None
        require(all_in, f"{what}: a folder with studies of {wanted} chapters expected, not {report}")
        self._say("teacher", f"{what} → 201", f"a folder with {len(sizes)} studies, of {sizes} chapters")
        again = await self._teacher.ask(what, "POST", path, 201, pgn.encode(), key=key)
        replayed = again.headers.get("Idempotent-Replayed") == "true" and again.content == first.content
        require(replayed, f"{what} again, with the same key: the same answer expected, and no second import")
        self._say("teacher", "the same again, with the same key → the same answer, and no second import")
        [folder] = await self._witness.published(report["folder_id"], 1)
        for one in report["studies"]:
            await self._imported(folder.event, one["id"], one["chapters"])
        return report

    async def _imported(self, folder: EventEnvelope, study_id: str, chapters: int) -> None:
        """The chain of one study is on Kafka: each link names the one before as its cause."""
        found = [one.event for one in await self._witness.published(study_id, chapters + 2)]
        chain = [
            (WorkspaceEvent.STUDY_CREATED, folder.event_id),
            (WorkspaceEvent.PGN_IMPORTED, found[0].event_id),
            *[(WorkspaceEvent.CHAPTER_CREATED, found[1].event_id)] * chapters,
        ]
        for event, (type_, cause) in zip(found, chain, strict=True):
            require(
                (event.event_type, event.causation_id) == (type_, cause),
                f"study {study_id}: {type_}, caused by {cause}, expected on Kafka as version {event.version},"
                f" not {event.event_type}, caused by {event.causation_id}",
            )
        types = " → ".join(event.event_type for event in found[:2])
        self._say("relay", f"published {types} → {chapters} × {found[2].event_type}, one chain")

    async def _finish(self, nodes: Sequence[str], study_id: str) -> None:
        events: dict[str, Sequence[EventEnvelope]] = {}
        for node_id in nodes:
            page = await self._teacher.get("read the activity", f"/nodes/{node_id}/activity?limit=1")
            count = page["items"][0]["version"]
            events[node_id] = [one.event for one in await self._witness.published(node_id, count)]
        study = events[study_id]
        await self._witness.all_told(len(study))
        total = sum(map(len, events.values()))
        self._say(
            "relay", f"all {total} events of {len(nodes)} nodes are on Kafka, in order and without a gap"
        )
        self._say("stream", f"told all {len(study)} of the study, through the bin and back, without a gap")
        title = f"Chain {self._witness.correlation_id}, without {_CHAPTERS_MAX - _CHAPTERS_SHOWN} chapters"
        self._timeline.console.print()
        self._timeline.console.print(chain_tree(title, _shortened(study)))


async def _happen(scene: Scene, pgn: str) -> None:
    """What happens to the study, one after the other."""
    thread = await ask(scene)
    await share(scene)
    await answer(scene, thread)
    await open_link(scene)
    await delete(scene)
    await restore(scene, thread)
    await change_and_go_back(scene)
    await export(scene, pgn)


def _shortened(events: Sequence[EventEnvelope]) -> list[EventEnvelope]:
    """*events* with the first chapters only."""
    seen: Counter[str] = Counter()
    shown: list[EventEnvelope] = []
    for event in events:
        seen[event.event_type] += 1
        if event.event_type != WorkspaceEvent.CHAPTER_CREATED or seen[event.event_type] <= _CHAPTERS_SHOWN:
            shown.append(event)
    return shown
