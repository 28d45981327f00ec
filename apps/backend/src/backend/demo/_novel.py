"""The story of a novel: a session from its creation to the stage FINISHED."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

import httpx2
from shared_types.genesis import GenesisStage, GenesisStatus

from backend.demo._client import PREFIX, Client
from backend.demo._events import EventLog, Published
from backend.demo._sources import TopicReader, follow_stream, in_background
from backend.demo._timeline import StepMissed, Timeline, chain_tree, require

__all__ = ("EVENT", "NovelStory", "summary")

_SESSIONS: Final = "/genesis/sessions"
#: Prefix of the names of events.
EVENT: Final = "Genesis.Session."
_PAIRS_MAX: Final = 5
#: Status codes of an API that restarts or is busy; the request is sent again.
_RETRIED: Final = frozenset({429, 502, 503, 504})


class NovelStory:
    """Runs the story of one session: sends requests with *client*, and prints the steps on *timeline*.

    *topic* reads the topic of Genesis, for the checks of published events.
    """

    def __init__(self, timeline: Timeline, client: Client, topic: TopicReader) -> None:
        self._show = timeline.show
        self._console = timeline.console
        self._client = client
        self._topic = topic

    async def run(self, preferences: Mapping[str, Any], feedback: str) -> None:
        """Run all steps.

        Args:
            preferences: Payload of RequestConceptGeneration.
            feedback: Text of the writer's feedback on the concepts.

        Raises:
            StepMissed: A response or an event is not as expected.
        """
        created = await self._client.send("create a session", "POST", _SESSIONS, 201, body={})
        session_id = created.json()["session_id"]
        self._show("writer", f"create a session → 201 {session_id}")
        self._path = f"{_SESSIONS}/{session_id}"
        self._log = EventLog(
            name=f"session {session_id}",
            correlation_id=self._client.correlation_id,
            limit_s=self._client.limit_s,
        )
        async with in_background(
            self._topic.read({session_id: self._log}.get),
            follow_stream(self._client.http, f"{PREFIX}{self._path}/events", self._log),
        ):
            await self._play(preferences, feedback)
            await self._finish()

    async def _play(self, preferences: Mapping[str, Any], feedback: str) -> None:
        """Lead the session from its creation to the confirmation of the last stage."""
        await self._choose_concept(preferences, feedback)
        for stage in list(GenesisStage)[1:-1]:
            await self._pass_stage(stage)

    async def _choose_concept(self, preferences: Mapping[str, Any], feedback: str) -> None:
        command = "RequestConceptGeneration"
        accepted, refused = await self._send_twice(command, preferences)
        self._show("writer", f"{command} → 202 {accepted}", f"{dict(preferences)}")
        self._show("writer", f"{command} again → 409 DUPLICATE_COMMAND")
        problem = f"the 409 should name the pending command {accepted}, it names {refused}"
        require(accepted == refused, problem)
        self._show("api", f"the 409 names the pending command {refused}")
        requested = await self._wait_published("ConceptGenerationRequested", accepted)
        self._show("relay", f"published {requested.event.event_type}", requested.place)
        await self._show_agent_at_work(accepted)
        proposed = await self._log.wait_streamed(f"{EVENT}ConceptProposed", command_id=accepted)
        options = proposed["payload"]["proposal"]["options"]
        require(len(options) == 3, f"three concepts expected, not {len(options)}")
        self._show("stream", f"{proposed['event_type']}, id {proposed['version']}: three concepts")
        for number, option in enumerate(options):
            self._show("agent", f"{number}  {option['title']}", option["logline"])
        await self._complete("SubmitFeedback", "FeedbackSubmitted", feedback, feedback=feedback, rating=4)
        await self._confirm(GenesisStage.CONCEPT_SELECTION)

    async def _send_twice(self, command: str, payload: Mapping[str, Any]) -> tuple[UUID, UUID]:
        """Send a command twice concurrently: one request must get 202, the other one 409.

        The agent may complete the first command before the API receives the second, and a crash may lose a
        response. Then wait until no command is pending, and send the command twice again, up to five times in
        all.

        Returns:
            The id of the accepted command, and the id that the 409 response names as the pending command.

        Raises:
            StepMissed: No pair of requests got 202 and 409, or the 409 has another code than
                DUPLICATE_COMMAND.
        """
        body = {"command_type": command, "payload": payload}
        for _ in range(_PAIRS_MAX):
            pair = await asyncio.gather(*(self._send_once(body) for _ in range(2)))
            responses = {response.status_code: response.json() for response in pair if response is not None}
            if responses.keys() == {202, 409}:
                code = responses[409]["error_code"]
                require(code == "DUPLICATE_COMMAND", f"the second {command}: {code} instead of a duplicate")
                return UUID(responses[202]["command_id"]), UUID(responses[409]["duplicate_command_id"])
            await self._wait_settled(command)
        raise StepMissed(
            f"two concurrent {command} should get 202 and 409; they did not in {_PAIRS_MAX} attempts"
        )

    async def _send_once(self, body: Mapping[str, Any]) -> httpx2.Response | None:
        path = f"{PREFIX}{self._path}/commands"
        try:
            response = await self._client.http.post(path, json=body, headers=self._client.headers)
        except httpx2.TransportError:
            return None
        return None if response.status_code in _RETRIED else response

    async def _wait_settled(self, step: str) -> Mapping[str, Any]:
        return await self._client.poll(step, f"{self._path}/state", lambda state: not state["is_pending"])

    async def _show_agent_at_work(self, command_id: UUID) -> None:
        path = f"{self._path}/commands/{command_id}"
        command = await self._client.poll("the agent's task", path, lambda command: command["task_id"])
        self._show("agent", f"took the request from Kafka as task {command['task_id']}")
        await self._wait_settled("the agent's work")
        # Read the task too: a fast muse has finished before the stream sends any progress.
        task = await self._client.get("read the task", f"{self._path}/tasks/{command['task_id']}")
        done = (task["status"], task["progress"]) == ("COMPLETED", 100.0)
        require(done, f"progress of 100 % expected, the task is {task}")
        percents = dict.fromkeys([*self._log.progress, task["progress"]])
        self._show("agent", f"reported progress: {', '.join(f'{percent:g} %' for percent in percents)}")

    async def _pass_stage(self, stage: GenesisStage) -> None:
        before = max(self._log.streamed, default=0)
        response = await self._send("RequestStageProposal", {})
        self._show("writer", f"RequestStageProposal → {response.status_code}  ({stage})")
        command_id = UUID(response.json()["command_id"])
        proposed = await self._log.wait_streamed(f"{EVENT}StageProposed", command_id=command_id, after=before)
        self._show("agent", f"proposed {stage}", summary(proposed["payload"]["proposal"]["options"][0]))
        await self._confirm(stage)

    async def _confirm(self, stage: GenesisStage) -> None:
        await self._complete("ConfirmStage", "StageConfirmed", stage.value, stage=stage.value, choice=0)

    async def _complete(self, command: str, event: str, shown: str, **payload: Any) -> None:
        """Send a command that completes within its request, and wait for its event on the stream."""
        before = max(self._log.streamed, default=0)
        response = await self._send(command, payload)
        self._show("writer", f"{command} → {response.status_code}  ({shown})")
        streamed = await self._log.wait_streamed(f"{EVENT}{event}", after=before)
        self._show("stream", f"{streamed['event_type']}, id {streamed['version']}")

    async def _send(self, command: str, payload: Mapping[str, Any]) -> httpx2.Response:
        body = {"command_type": command, "payload": payload}
        return await self._client.send(command, "POST", f"{self._path}/commands", 200, 202, body=body)

    async def _finish(self) -> None:
        finished = await self._log.wait_streamed(f"{EVENT}Finished")
        state = await self._client.get("read the state", f"{self._path}/state")
        done = (state["status"], state["current_stage"]) == (GenesisStatus.COMPLETED, GenesisStage.FINISHED)
        require(done, f"a finished session expected, the state is {state}")
        self._show("stream", f"{finished['event_type']}, id {finished['version']}: the session is FINISHED")
        published = await self._log.wait_published(state["version"])
        await self._log.wait_streamed_count(state["version"])
        self._show("relay", f"all {len(published)} events are on Kafka, once each and in order")
        self._console.print()
        events = [one.event for one in published]
        self._console.print(chain_tree(f"Chain {self._client.correlation_id}", events))

    async def _wait_published(self, event: str, command_id: UUID) -> Published:
        def find() -> Published | None:
            matching = (
                one
                for one in self._log.published.values()
                if one.event.event_type == f"{EVENT}{event}"
                and one.event.payload.get("command_id") == str(command_id)
            )
            return next(matching, None)

        return await self._log.wait_for(f"{event} on Kafka", find)


def summary(option: Mapping[str, Any]) -> str:
    """Return one line of an option: its first text, or the names of the items in its first list."""
    first = next(iter(option.values()), "")
    if isinstance(first, str):
        return first
    return " · ".join(str(item.get("name") or item.get("title")) for item in first)
