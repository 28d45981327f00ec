"""A session from its first concept to FINISHED, over HTTP alone."""

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from uuid import UUID

import pytest
from shared_types.genesis import GenesisStage

from tests.fixtures.product import BACKEND, SESSIONS, Product, Writer

LATER = ["STORY_CONCEPTION", "WORLDVIEW", "CHARACTERS", "PLOT_OUTLINE"]


def test_a_session_passes_all_stages_and_is_finished(writer: Writer) -> None:
    session = writer.create()
    first = writer.state(session)
    assert (first["status"], first["current_stage"], first["version"]) == (
        "IN_PROGRESS",
        "CONCEPT_SELECTION",
        1,
    )
    preferences = {"theme_preferences": ["科幻", "悬疑"], "style_preferences": ["快节奏", "第一人称"]}
    assert writer.command(session, "RequestConceptGeneration", **preferences).status_code == 202
    proposed = writer.wait_until_settled(session)["last_result"]
    concepts = proposed["proposal"]["options"]
    assert len(concepts) == 3
    assert all(any("一" <= sign <= "鿿" for sign in concept["logline"]) for concept in concepts)
    done = writer.command(session, "SubmitFeedback", feedback="更黑暗一些", rating=4)
    assert done.status_code == 200
    assert done.json() | {"command_id": ""} == {
        "command_id": "",
        "status": "COMPLETED",
        "message": "Command processed successfully",
    }
    assert writer.command(session, "ConfirmStage", stage="CONCEPT_SELECTION", choice=1).status_code == 200
    for stage in LATER:
        assert writer.state(session)["current_stage"] == stage
        assert writer.command(session, "RequestStageProposal").status_code == 202
        assert writer.wait_until_settled(session)["last_result"]["proposal"]["stage"] == stage
        assert writer.command(session, "ConfirmStage", stage=stage, choice=0).status_code == 200
    last = writer.state(session)
    assert (last["status"], last["current_stage"]) == ("COMPLETED", "FINISHED")
    assert set(last["confirmed_data"]) == {stage.value for stage in GenesisStage} - {"FINISHED"}
    assert last["confirmed_data"]["CONCEPT_SELECTION"] == concepts[1]


@pytest.mark.guarantee("G05")
def test_duplicate_command_is_refused_with_the_pending_commands_id(
    writer: Writer, agent_paused: Callable[[], AbstractContextManager[None]]
) -> None:
    session = writer.create()
    with agent_paused():
        accepted = writer.command(session, "RequestConceptGeneration")
        again = writer.command(session, "RequestConceptGeneration")
        state = writer.state(session)
        crossing = writer.command(session, "ConfirmStage", choice=0)
    assert accepted.status_code == 202
    assert accepted.json()["status"] == "RECEIVED"
    assert accepted.headers["location"] == f"{SESSIONS}/{session}/commands/{accepted.json()['command_id']}"
    assert again.status_code == 409
    assert {key: again.json()[key] for key in ("error_code", "message", "duplicate_command_id")} == {
        "error_code": "DUPLICATE_COMMAND",
        "message": "Command already processing",
        "duplicate_command_id": accepted.json()["command_id"],
    }
    assert (state["is_pending"], state["pending_command_type"]) == (True, "RequestConceptGeneration")
    assert (crossing.status_code, crossing.json()["error_code"]) == (422, "PROPOSAL_PENDING")
    assert writer.wait_until_settled(session)["version"] == 3


def test_command_and_task_can_be_followed_to_their_end(writer: Writer) -> None:
    session = writer.create()
    accepted = writer.command(session, "RequestConceptGeneration")
    writer.wait_until_settled(session)
    command = writer.get(accepted.headers["location"]).json()
    assert (command["status"], command["error"]) == ("COMPLETED", None)
    task = writer.get(f"{SESSIONS}/{session}/tasks/{command['task_id']}").json()
    assert (task["status"], task["progress"]) == ("COMPLETED", 100.0)
    assert len(task["result"]["options"]) == 3


def test_an_abandoned_session_is_closed_and_its_request_failed(
    writer: Writer, agent_paused: Callable[[], AbstractContextManager[None]]
) -> None:
    session = writer.create()
    with agent_paused():
        accepted = writer.command(session, "RequestConceptGeneration")
        assert writer.command(session, "AbandonSession", reason="no time").status_code == 200
    state = writer.state(session)
    assert (state["status"], state["is_pending"]) == ("ABANDONED", False)
    command = writer.get(accepted.headers["location"]).json()
    assert (command["status"], command["error"]["error_code"]) == ("FAILED", "SESSION_ABANDONED")
    refused = writer.command(session, "RequestConceptGeneration")
    assert (refused.status_code, refused.json()["error_code"]) == (422, "SESSION_CLOSED")


def test_sessions_are_listed_newest_first_page_by_page(product: Product) -> None:
    with product.writer("lister") as lister:
        created = [lister.create() for _ in range(5)]
        found: list[str] = []
        cursor: str | None = None
        for _ in range(3):
            page = lister.get(SESSIONS, params={"limit": 2} | ({"cursor": cursor} if cursor else {})).json()
            found += [one["session_id"] for one in page["items"]]
            cursor = page["next_cursor"]
    assert cursor is None
    assert found == created[::-1]


def test_session_can_reference_a_novel(writer: Writer) -> None:
    novel = "5f0c3c0e-9a4c-4b8e-8f52-0d1df3a5a001"
    answer = writer.post(SESSIONS, json={"novel_id": novel})
    assert answer.headers["location"] == f"{SESSIONS}/{answer.json()['session_id']}/state"
    newest = writer.get(SESSIONS, params={"limit": 1}).json()["items"][0]
    assert (newest["session_id"], newest["novel_id"]) == (answer.json()["session_id"], novel)


@pytest.mark.parametrize("language", ["zh", "en"])
def test_genesis_demo_runs_against_a_running_product(product: Product, language: str) -> None:
    told = product.run(BACKEND, "demo", "--language", language)
    assert told.returncode == 0, told.stdout + told.stderr
    assert "409 DUPLICATE_COMMAND" in told.stdout
    # If a fast agent ends the first request before the second of the pair arrives, the demo sends a new pair.
    requested = len(re.findall(r"─ +\d+ Genesis\.Session\.ConceptGenerationRequested", told.stdout))
    events = 16 + 2 * requested
    assert f"all {events} events are on Kafka, once each and in order" in told.stdout
    assert told.stdout.rstrip().endswith("Every step happened.")


def test_guided_demo_runs_against_a_running_product(product: Product) -> None:
    told = product.run(BACKEND, "demo", "guided")
    assert told.returncode == 0, told.stdout + told.stderr
    assert "proposed PLOT_OUTLINE, requested by the run" in told.stdout
    assert "all 29 events are on Kafka, once each and in order" in told.stdout


@pytest.mark.guarantee("G08")
def test_workspace_demo_follows_100_games_through_one_chain(product: Product) -> None:
    told = product.run(BACKEND, "demo", "workspace")
    assert told.returncode == 0, told.stdout + told.stderr
    for line in (
        "import 100 games → 201",
        "published study.created → study.pgn_imported → 64 × study.chapter.created, one chain",
        "published study.created → study.pgn_imported → 36 × study.chapter.created, one chain",
        "rename it → 403",
        "open the link: wrong password → 403, the right one → 200",
        "delete the study → 204; all users get 404 now",
        "node.restored, id ",
        "go back to version 1 → 201, as version 3",
        "the 100 games are those of the file, to the last comment",
        "of 4 nodes are on Kafka, in order and without a gap",
    ):
        assert line in told.stdout, told.stdout
    assert told.stdout.rstrip().endswith("Every step happened.")


@pytest.mark.guarantee("G08")
def test_events_of_the_story_share_one_chain(writer: Writer) -> None:
    chain = UUID("5f0c3c0e-9a4c-4b8e-8f52-0d1df3a5a002")
    writer.headers["X-Correlation-ID"] = str(chain)
    session = writer.create()
    writer.command(session, "RequestConceptGeneration")
    writer.wait_until_settled(session)
    with writer.follow(session) as events:
        told = [next(events) for _ in range(3)]
    assert {event.data["correlation_id"] for event in told} == {str(chain)}
    assert told[2].data["causation_id"] == told[1].data["event_id"]
