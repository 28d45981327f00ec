"""The story itself: from a first concept to FINISHED, every step seen from outside."""

from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

import httpx2
from shared_types.genesis import GenesisStage, GenesisStatus

from backend.demo._journal import Journal, Published, place_of
from backend.demo._listening import listening
from backend.demo._stream import follow
from backend.demo._timeline import StepMissed, Timeline, chain_tree
from backend.demo._topic import Topic
from backend.demo._writer import Sent, Writer

__all__ = ("Story", "Wishes")

Wishes = Mapping[str, Any]
_PREFIX: Final = "/api/v1/genesis/sessions"
#: The longest wait for anything that does not need the agent.
WAIT_S: Final = 30.0


class Story:
    """Tells one session's story on *timeline*.

    *agent_s* is how long an answer of the agent may take at most: a killed agent's task is taken
    over after its lease.
    """

    def __init__(
        self, timeline: Timeline, client: httpx2.AsyncClient, topic: Topic, *, agent_s: float
    ) -> None:
        self._say = timeline.say
        self._console = timeline.console
        self._client = client
        self._topic = topic
        self._agent_s = agent_s
        self._journal = Journal()
        self._writer = Writer(client, _PREFIX, patience_s=agent_s)

    async def tell(self, wishes: Wishes, feedback: str) -> None:
        """Tell it to its end.

        Raises:
            StepMissed: a step did not happen; names it.
        """
        await self._writer.create()
        self._say("writer", f"create a session → 201 {self._writer.session_id}")
        async with listening(
            self._topic.listen({self._writer.session_id: self._journal}.get),
            follow(self._client, f"{self._writer.path}/events", self._journal),
        ):
            await self._choose_concept(wishes, feedback)
            for stage in list(GenesisStage)[1:-1]:
                await self._pass(stage)
            await self._finish()

    async def _choose_concept(self, wishes: Wishes, feedback: str) -> None:
        command = "RequestConceptGeneration"
        taken, refused = await self._writer.send_twice(command, **wishes)
        self._say("writer", f"{command} → 202 {taken}", f"{dict(wishes)}")
        self._say("writer", f"{command} again → 409 DUPLICATE_COMMAND")
        if taken != refused:
            raise StepMissed(f"the 409 should name the pending command {taken}, it names {refused}")
        self._say("api", f"the 409 names the pending command {refused}")
        requested = await self._published("ConceptGenerationRequested", taken)
        self._say("relay", f"published {requested.event.event_type}", place_of(requested))
        await self._agent_at_work(taken)
        proposed = await self._answer("ConceptProposed", taken)
        options = proposed["payload"]["proposal"]["options"]
        if len(options) != 3:
            raise StepMissed(f"three concepts expected, {len(options)} came")
        self._say("stream", f"{proposed['event_type']}, id {proposed['version']}: three concepts")
        for number, option in enumerate(options):
            self._say("agent", f"{number}  {option['title']}", option["logline"])
        await self._done("SubmitFeedback", "FeedbackSubmitted", feedback=feedback, rating=4)
        await self._confirm(GenesisStage.CONCEPT_SELECTION)

    async def _agent_at_work(self, command_id: UUID) -> None:
        task_id = await self._writer.task_of(command_id)
        self._say("agent", f"took the request from Kafka as task {task_id}")
        await self._writer.settled("the agent's work")
        # On the stream when the muse takes its time; a fast one is done before anybody could hear of it.
        task = await self._writer.get("read the task", f"{self._writer.path}/tasks/{task_id}")
        if (task["status"], task["progress"]) != ("COMPLETED", 100.0):
            raise StepMissed(f"progress of 100 % expected, the task says {task}")
        heard = [f"{percent:g} %" for percent in dict.fromkeys([*self._journal.progress, task["progress"]])]
        self._say("agent", f"reported progress: {', '.join(heard)}")

    async def _pass(self, stage: GenesisStage) -> None:
        before = max(self._journal.told, default=0)
        sent = await self._writer.send("RequestStageProposal")
        self._say("writer", f"RequestStageProposal → {_answered(sent)}  ({stage})")
        proposed = await self._answer("StageProposed", sent.command_id, after=before)
        self._say("agent", f"proposed {stage}", *_gist(proposed["payload"]["proposal"]["options"][0]))
        await self._confirm(stage)

    async def _confirm(self, stage: GenesisStage) -> None:
        await self._done("ConfirmStage", "StageConfirmed", stage=stage.value, choice=0)

    async def _done(self, command_type: str, event: str, **payload: Any) -> None:
        before = max(self._journal.told, default=0)
        sent = await self._writer.send(command_type, **payload)
        shown = payload.get("stage") or payload.get("feedback")
        self._say("writer", f"{command_type} → {_answered(sent)}  ({shown})")
        told = await self._told(event, None, after=before, limit_s=WAIT_S)
        self._say("stream", f"{told['event_type']}, id {told['version']}")

    async def _finish(self) -> None:
        finished = await self._told("Finished", None, after=0, limit_s=WAIT_S)
        state = await self._writer.state()
        if (state["status"], state["current_stage"]) != (GenesisStatus.COMPLETED, GenesisStage.FINISHED):
            raise StepMissed(f"a finished session expected, the state says {state}")
        self._say("stream", f"{finished['event_type']}, id {finished['version']}: the session is FINISHED")
        count = state["version"]
        await self._journal.until("every event on Kafka", lambda: self._all(count) or None, self._agent_s)
        self._check(count)
        self._say("relay", f"all {count} events are on Kafka, once each and in order")
        events = [self._journal.published[version].event for version in range(1, count + 1)]
        self._console.print()
        self._console.print(chain_tree(f"Chain {self._writer.correlation_id}", events))

    def _all(self, count: int) -> bool:
        return len(self._journal.published) >= count and len(self._journal.told) >= count

    def _check(self, count: int) -> None:
        events = [self._journal.published[version].event for version in range(1, count + 1)]
        if any(event.correlation_id != self._writer.correlation_id for event in events):
            raise StepMissed("every event should belong to the chain that the writer began")
        if self._journal.faults:
            raise StepMissed("; ".join(self._journal.faults))

    async def _published(self, event: str, command_id: UUID) -> Published:
        def look() -> Published | None:
            return next(
                (one for one in self._journal.published.values() if _is(_data(one), event, command_id)), None
            )

        return await self._journal.until(f"{event} on Kafka", look, self._agent_s)

    async def _answer(self, event: str, command_id: UUID | None, *, after: int = 0) -> Mapping[str, Any]:
        return await self._told(event, command_id, after=after, limit_s=self._agent_s)

    async def _told(
        self, event: str, command_id: UUID | None, *, after: int, limit_s: float
    ) -> Mapping[str, Any]:
        def look() -> Mapping[str, Any] | None:
            later = (data for version, data in self._journal.told.items() if version > after)
            return next((data for data in later if _is(data, event, command_id)), None)

        return await self._journal.until(f"{event} on the event stream", look, limit_s)


def _data(one: Published) -> Mapping[str, Any]:
    return {"event_type": one.event.event_type, "payload": one.event.payload}


def _is(data: Mapping[str, Any], event: str, command_id: UUID | None) -> bool:
    """Whether this is *event*, the one of *command_id* if that is known."""
    named = data["event_type"].rpartition(".")[2] == event
    return named and (command_id is None or data["payload"].get("command_id") == str(command_id))


def _answered(sent: Sent) -> str:
    answer = "taken, its answer was lost" if sent.status is None else str(sent.status)
    return answer if sent.tries == 1 else f"{answer} after {sent.tries} tries"


def _gist(option: Mapping[str, Any]) -> Sequence[str]:
    """One line of an option: its first text, or the names of what it lists first."""
    first = next(iter(option.values()), "")
    if isinstance(first, str):
        return (first,)
    return (" · ".join(str(item.get("name") or item.get("title")) for item in first),)
