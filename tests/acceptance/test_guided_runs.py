"""Guided runs of a session, as a writer's page sees them: commands, state and event stream."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import httpx2 as httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families
from shared_types.genesis import GenesisStage

from tests.fixtures.guided_runs import STAGES, whole_run
from tests.fixtures.product import Product, StreamEvent, Writer, wait_for

#: Time limit of runs in the product of the expiry test: 2 s.
LIMIT_H = "0.0005"


def guided(writer: Writer) -> str:
    """Return a new session with a guided run."""
    session = writer.create()
    started = writer.command(session, "StartGuidedRun")
    assert (started.status_code, started.json()["status"]) == (200, "COMPLETED"), started.text
    run = writer.state(session)["guided_run"]
    assert run["run_id"] == started.json()["command_id"]
    return session


def wait_for_status(writer: Writer, session: str, status: str) -> dict[str, Any]:
    """Return the state of the session once its run has *status*."""

    def look() -> dict[str, Any] | None:
        state = writer.state(session)
        return state if state["guided_run"]["status"] == status else None

    return wait_for(f"a run that is {status}", look)


def until(events: Iterator[StreamEvent], name: str) -> StreamEvent:
    return next(one for one in events if one.type == f"Genesis.Session.{name}")


def history(writer: Writer, session: str) -> list[str]:
    """Return the event types of a session whose run has ended."""
    version = writer.state(session)["version"]
    with writer.follow(session) as events:
        return [next(events).type.removeprefix("Genesis.Session.") for _ in range(version)]


def confirm(writer: Writer, session: str, stage: GenesisStage) -> None:
    done = writer.command(session, "ConfirmStage", stage=stage.value, choice=0)
    assert done.status_code == 200, done.text


def proposed(stage: GenesisStage) -> str:
    return "ConceptProposed" if stage is STAGES[0] else "StageProposed"


def test_guided_run_leads_a_session_to_its_end(writer: Writer) -> None:
    session = guided(writer)
    with writer.follow(session) as events:
        begun = until(events, "GuidedRunCreated")
        for stage in STAGES:
            until(events, proposed(stage))
            confirm(writer, session, stage)
        finished = until(events, "GuidedRunFinished")
    assert history(writer, session) == whole_run()
    state = writer.state(session)
    assert (state["status"], state["current_stage"]) == ("COMPLETED", "FINISHED")
    run = state["guided_run"]
    assert (run["status"], finished.data["payload"]["run_id"]) == ("FINISHED", run["run_id"])
    assert run["expires_at"] == begun.data["payload"]["expires_at"]


def test_feedback_makes_the_run_request_another_proposal(writer: Writer) -> None:
    session = guided(writer)
    with writer.follow(session) as events:
        for stage in STAGES:
            until(events, proposed(stage))
            if stage is GenesisStage.WORLDVIEW:
                assert writer.command(session, "SubmitFeedback", feedback="darker").status_code == 200
                again = until(events, "StageProposalRequested")
                assert [one["feedback"] for one in again.data["payload"]["feedback"]] == ["darker"]
                until(events, proposed(stage))
            confirm(writer, session, stage)
        until(events, "GuidedRunFinished")
    assert history(writer, session) == whole_run(feedback=GenesisStage.WORLDVIEW)


def test_stopped_run_requests_no_more_proposals(writer: Writer) -> None:
    session = guided(writer)
    with writer.follow(session) as events:
        until(events, "ConceptProposed")
        assert writer.command(session, "StopGuidedRun").status_code == 200
        confirm(writer, session, STAGES[0])
        until(events, "StageConfirmed")
        assert writer.state(session)["guided_run"]["status"] == "STOPPED"
        again = writer.command(session, "StopGuidedRun")
        assert (again.status_code, again.json()["error_code"]) == (422, "GUIDED_RUN_INACTIVE")
        # The next run goes on in the current stage.
        assert writer.command(session, "StartGuidedRun").status_code == 200
        until(events, "StageProposed")
    assert history(writer, session)[5:] == [
        *("GuidedRunUpdated", "StageConfirmed"),
        *("GuidedRunRequested", "GuidedRunCreated", "StageProposalRequested", "StageProposed"),
    ]


def test_run_stopped_before_it_begins_requests_nothing(
    writer: Writer, agent_paused: Callable[[], AbstractContextManager[None]]
) -> None:
    session = writer.create()
    with agent_paused():
        assert writer.command(session, "StartGuidedRun").status_code == 200
        run = writer.state(session)["guided_run"]
        assert (run["status"], run["expires_at"]) == ("REQUESTED", None)
        assert writer.command(session, "StopGuidedRun").status_code == 200
    # The agent has read the run's request before this one, because both have the same key.
    writer.command(session, "RequestConceptGeneration")
    writer.wait_until_settled(session)
    assert history(writer, session) == [
        *("Created", "GuidedRunRequested", "GuidedRunUpdated"),
        *("ConceptGenerationRequested", "ConceptProposed"),
    ]


def test_of_concurrent_starts_exactly_one_begins_a_run(writer: Writer) -> None:
    session = writer.create()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: writer.command(session, "StartGuidedRun"), range(8)))
    assert sorted(one.status_code for one in answers) == [200, *[422] * 7]
    refused = {one.json()["error_code"] for one in answers if one.status_code == 422}
    assert refused == {"GUIDED_RUN_ACTIVE"}
    with writer.follow(session) as events:
        until(events, "ConceptProposed")
    assert history(writer, session).count("GuidedRunRequested") == 1


def test_abandoned_session_ends_its_run(writer: Writer) -> None:
    session = guided(writer)
    with writer.follow(session) as events:
        until(events, "ConceptProposed")
        assert writer.command(session, "AbandonSession").status_code == 200
        until(events, "Updated")
    assert writer.state(session)["guided_run"]["status"] == "STOPPED"
    assert history(writer, session)[-2:] == ["GuidedRunUpdated", "Updated"]
    refused = writer.command(session, "StartGuidedRun")
    assert (refused.status_code, refused.json()["error_code"]) == (422, "SESSION_CLOSED")


@pytest.mark.guarantee("G44")
def test_run_without_an_answer_expires_and_leaves_the_session_usable(
    make_product: Callable[..., Product],
) -> None:
    product = make_product("expiring", GENESIS_GUIDED_RUN_H=LIMIT_H)
    product.start()
    try:
        with product.writer() as writer:
            session = guided(writer)
            wait_for_status(writer, session, "EXPIRED")
            writer.wait_until_settled(session)
            # On a loaded machine a run of under 2 s expires before it has requested a proposal.
            assert writer.command(session, "RequestConceptGeneration").status_code == 202
            writer.wait_until_settled(session)
            confirm(writer, session, STAGES[0])
            assert writer.command(session, "RequestStageProposal").status_code == 202
            assert writer.wait_until_settled(session)["last_result"]["status"] == "COMPLETED"
            assert writer.command(session, "StartGuidedRun").status_code == 200
            wait_for_status(writer, session, "EXPIRED")
            assert writer.state(session)["status"] == "IN_PROGRESS"
    finally:
        assert product.stop() == 0, product.log_text()


def test_agent_exports_the_metrics_of_guided_runs(product: Product, writer: Writer) -> None:
    session = guided(writer)
    with writer.follow(session) as events:
        until(events, "ConceptProposed")
    agent = psutil.Process(product.pid_of("concept-agent"))
    [port] = {one.laddr.port for one in agent.net_connections() if one.status == psutil.CONN_LISTEN}

    def waiting() -> float | None:
        text = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
        samples = [one for family in text_string_to_metric_families(text) for one in family.samples]
        states = {one.labels["state"]: one.value for one in samples if one.name == "relaybox_flows"}
        return states.get("waiting")

    wait_for("the run's wait to be measured", waiting)


def test_openapi_shows_the_commands_and_their_refusals(writer: Writer) -> None:
    document = writer.get("/openapi.json").text
    for name in ("StartGuidedRun", "StopGuidedRun", "GUIDED_RUN_ACTIVE", "GUIDED_RUN_INACTIVE"):
        assert name in document
    assert "ReportGuidedRun" not in document
