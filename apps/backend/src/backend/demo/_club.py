"""The story of a chess club: a match of 100 games is imported, discussed, shared, deleted and restored."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import uuid4

import httpx2
from relaybox_types.envelope import EventEnvelope
from shared_types.workspace import WorkspaceEvent

from backend.demo._client import PREFIX
from backend.demo._club_games import GAMES, club_match
from backend.demo._club_steps import People, StudySteps
from backend.demo._events import EventLog
from backend.demo._sources import TopicReader, follow_stream, in_background
from backend.demo._timeline import Timeline, chain_tree, require

__all__ = ("ClubStory",)

#: Maximum number of chapters in a study; an import of more games creates a folder with several studies.
_CHAPTERS_MAX: Final = 64
#: Number of chapter events in the tree that is printed at the end.
_CHAPTERS_SHOWN: Final = 2


class ClubStory:
    """Runs the story of the chess club: sends the requests of *people*, and prints the steps on *timeline*.

    *topic* reads the topic of Genesis and Workspace, for the checks of published events.
    """

    def __init__(self, timeline: Timeline, people: People, topic: TopicReader) -> None:
        self._show, self._console = timeline.show, timeline.console
        self._people, self._teacher = people, people.teacher
        self._topic = topic
        self._logs: dict[str, EventLog] = {}

    async def run(self) -> None:
        """Run all steps.

        Raises:
            StepMissed: A response or an event is not as expected.
        """
        pgn = club_match()
        async with in_background(self._topic.read(self._log)):
            root_id = await self._create()
            report = await self._import(root_id, pgn)
            nodes = [root_id, report["folder_id"], *(one["id"] for one in report["studies"])]
            study_id = report["studies"][0]["id"]
            log = self._log(study_id)
            path = f"{PREFIX}/nodes/{study_id}/events"
            async with in_background(follow_stream(self._teacher.http, path, log)):
                steps = StudySteps(
                    people=self._people,
                    log=log,
                    folder_id=report["folder_id"],
                    study_id=study_id,
                    show=self._show,
                )
                await steps.run(pgn)
                await self._finish(nodes, study_id)

    def _log(self, node_id: str) -> EventLog:
        """Return the log of the received events of a node; create an empty log at the first call."""
        if node_id not in self._logs:
            self._logs[node_id] = EventLog(
                name=f"node {node_id}",
                correlation_id=self._teacher.correlation_id,
                limit_s=self._teacher.limit_s,
            )
        return self._logs[node_id]

    async def _create(self) -> str:
        body = {"kind": "workspace", "title": "Chess club"}
        created = await self._teacher.send("create a workspace", "POST", "/nodes", 201, body=body)
        root_id = created.json()["id"]
        self._show("teacher", f"create a workspace → 201 {root_id}")
        [published] = await self._log(root_id).wait_published(1)
        self._show("relay", f"published {published.event.event_type}", published.place)
        return root_id

    async def _import(self, root_id: str, pgn: str) -> Mapping[str, Any]:
        query = httpx2.QueryParams(title="Club match", parent_id=root_id)
        step, path, key = f"import {GAMES} games", f"/studies/import-pgn?{query}", str(uuid4())
        first = await self._teacher.send(step, "POST", path, 201, body=pgn.encode(), key=key)
        report = first.json()
        sizes = [one["chapters"] for one in report["studies"]]
        expected = [_CHAPTERS_MAX, GAMES - _CHAPTERS_MAX]
        complete = (sizes, report["skipped_count"]) == (expected, 0) and report["folder_id"] is not None
        require(complete, f"{step}: a folder with studies of {expected} chapters expected, not {report}")
        self._show("teacher", f"{step} → 201", f"a folder with {len(sizes)} studies, of {sizes} chapters")
        again = await self._teacher.send(step, "POST", path, 201, body=pgn.encode(), key=key)
        replayed = again.headers.get("Idempotent-Replayed") == "true" and again.content == first.content
        require(replayed, f"{step} again, with the same key: the same response expected, no second import")
        self._show("teacher", "the same again, with the same key → the same response, no second import")
        [folder] = await self._log(report["folder_id"]).wait_published(1)
        for one in report["studies"]:
            await self._check_imported(folder.event, one["id"], one["chapters"])
        return report

    async def _check_imported(self, folder: EventEnvelope, study_id: str, chapters: int) -> None:
        """Check types and causation ids of the events of an imported study on Kafka.

        The event of the folder causes study.created, which causes study.pgn_imported, which causes the events
        of the chapters.
        """
        found = [one.event for one in await self._log(study_id).wait_published(chapters + 2)]
        chain = [
            (WorkspaceEvent.STUDY_CREATED, folder.event_id),
            (WorkspaceEvent.PGN_IMPORTED, found[0].event_id),
            *[(WorkspaceEvent.CHAPTER_CREATED, found[1].event_id)] * chapters,
        ]
        for event, (event_type, cause) in zip(found, chain, strict=True):
            require(
                (event.event_type, event.causation_id) == (event_type, cause),
                f"study {study_id}: {event_type}, caused by {cause}, expected on Kafka as version"
                f" {event.version}, not {event.event_type}, caused by {event.causation_id}",
            )
        types = " → ".join(event.event_type for event in found[:2])
        self._show("relay", f"published {types} → {chapters} × {found[2].event_type}, one chain")

    async def _finish(self, nodes: Sequence[str], study_id: str) -> None:
        events: dict[str, Sequence[EventEnvelope]] = {}
        for node_id in nodes:
            page = await self._teacher.get("read the activity", f"/nodes/{node_id}/activity?limit=1")
            published = await self._log(node_id).wait_published(page["items"][0]["version"])
            events[node_id] = [one.event for one in published]
        study = events[study_id]
        await self._log(study_id).wait_streamed_count(len(study))
        total = sum(map(len, events.values()))
        self._show(
            "relay", f"all {total} events of {len(nodes)} nodes are on Kafka, in order and without a gap"
        )
        self._show("stream", f"sent all {len(study)} of the study, through the bin and back, without a gap")
        title = f"Chain {self._teacher.correlation_id}, without {_CHAPTERS_MAX - _CHAPTERS_SHOWN} chapters"
        self._console.print()
        self._console.print(chain_tree(title, _shortened(study)))


def _shortened(events: Sequence[EventEnvelope]) -> list[EventEnvelope]:
    """Return *events* with only the first two of the chapter events."""
    seen: Counter[str] = Counter()
    shown: list[EventEnvelope] = []
    for event in events:
        seen[event.event_type] += 1
        if event.event_type != WorkspaceEvent.CHAPTER_CREATED or seen[event.event_type] <= _CHAPTERS_SHOWN:
            shown.append(event)
    return shown
