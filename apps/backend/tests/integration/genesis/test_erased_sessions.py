"""Erased genesis sessions: over HTTP, in their rows, and in a rebuild."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import httpx2 as httpx
import pytest
from backend.genesis import SessionProjection, genesis
from backend.genesis.agent import ConceptAgent
from backend.genesis.guiding import GuidedRuns
from backend.genesis.muse import OfflineMuse
from backend.genesis.routes import genesis_router
from backend.genesis.session import SQL
from backend.rebuilding import Difference
from backend.rebuilding import rebuild as rebuild_rows
from backend.settings import GenesisSettings
from prometheus_client import CollectorRegistry
from pydantic import SecretStr
from relaybox.commands import CommandService
from relaybox.consumers import EventTransaction
from relaybox.db import Database
from relaybox.events import erase, fetch_stream
from relaybox.http import Backbone, SharedSecretVerifier, create_app, make_token
from relaybox.outbox import Notifier
from relaybox.settings import JwtSettings, TaskSettings
from relaybox.telemetry import CommandMetrics
from relaybox_types.envelope import build_event_envelope
from shared_types.genesis import GenesisStage
from sqlalchemy.ext.asyncio import AsyncSession

from tests.fixtures.story import content

_JWT = JwtSettings(secret=SecretStr("erased-secret-that-is-long-enough-for-hs256"))
_PATH = "/api/v1/genesis/sessions"
SECRET = "雾港来信"
_VERSIONS = "SELECT id, version FROM genesis_sessions"


class Writer:
    """An HTTP client of an API in this process."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http
        self._headers = {"Authorization": f"Bearer {make_token(_JWT, 'writer')}"}

    async def create(self, **fields: Any) -> str:
        answer = await self._http.post(_PATH, json=fields, headers=self._headers)
        return answer.json()["session_id"]

    async def command(self, session_id: str, command_type: str, **payload: Any) -> httpx.Response:
        body = {"command_type": command_type, "payload": payload}
        return await self._http.post(f"{_PATH}/{session_id}/commands", json=body, headers=self._headers)

    async def get(self, path: str) -> httpx.Response:
        return await self._http.get(_PATH + path, headers=self._headers)

    async def state(self, session_id: str) -> dict[str, Any]:
        return (await self.get(f"/{session_id}/state")).json()


@pytest.fixture
async def writer(database: Database) -> AsyncIterator[Writer]:
    backbone = Backbone(database, [genesis], verifier=SharedSecretVerifier(_JWT), service="api-gateway")
    app = create_app(
        title="Genesis", version="0", lifespan=backbone.lifespan, checks={}, registry=backbone.registry
    )
    app.include_router(genesis_router(backbone), prefix=_PATH)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://genesis") as http:
        yield Writer(http)


async def erase_session(database: Database, *session_ids: str) -> None:
    await database.run_in_transaction(
        lambda db: erase(db, "GENESIS_SESSION", session_ids, actor="ann", reason="asked"),
        isolation="READ COMMITTED",
    )


async def rebuild(database: Database, *, write: bool = False) -> tuple[int, int, int]:
    """Rebuild; return the numbers of sessions, differences and repairs."""
    found: list[Difference] = []
    report = await rebuild_rows(database, SessionProjection(), write=write, on_difference=found.append)
    return report.aggregates, report.differences, report.repaired


async def execute(database: Database, statement: str, *arguments: Any) -> list[Any]:
    async with database.connection() as connection:
        return list(await connection.fetch(statement, *arguments))


async def confirmed(writer: Writer) -> str:
    """Return a session with own content of the writer."""
    session_id = await writer.create(novel_id=str(uuid4()))
    own = content(GenesisStage.CONCEPT_SELECTION, SECRET)
    assert (await writer.command(session_id, "ConfirmStage", content=own)).status_code == 200
    return session_id


async def test_erased_session_is_readable_as_abandoned_and_empty(database: Database, writer: Writer) -> None:
    session_id = await confirmed(writer)
    await writer.command(session_id, "RequestStageProposal", notes=SECRET)
    await erase_session(database, session_id)
    assert await writer.state(session_id) == {
        "session_id": session_id,
        "status": "ABANDONED",
        "current_stage": "CONCEPT_SELECTION",
        "is_pending": False,
        "pending_command_type": None,
        "confirmed_data": None,
        "last_result": None,
        "version": 3,
        "guided_run": None,
    }
    [row] = await execute(database, "SELECT to_jsonb(one)::text AS row FROM genesis_sessions AS one")
    assert SECRET not in row["row"]
    assert [one["session_id"] for one in (await writer.get("")).json()["items"]] == [session_id]


async def test_erased_session_refuses_every_command_with_one_code(database: Database, writer: Writer) -> None:
    session_id = await confirmed(writer)
    await writer.command(session_id, "RequestStageProposal")
    await erase_session(database, session_id)
    for command_type in (
        "RequestConceptGeneration",
        "RequestStageProposal",
        "ConfirmStage",
        "AbandonSession",
    ):
        payload = {"choice": 0} if command_type == "ConfirmStage" else {}
        refused = await writer.command(session_id, command_type, **payload)
        assert (refused.status_code, refused.json()["error_code"]) == (422, "SESSION_ERASED")
    async with database.connection() as connection:
        assert len(await fetch_stream(connection, "GENESIS_SESSION", session_id)) == 3


async def test_rebuild_accepts_erased_sessions_and_finds_no_difference(
    database: Database, writer: Writer
) -> None:
    erased, kept = await confirmed(writer), await confirmed(writer)
    await erase_session(database, erased)
    assert await rebuild(database) == (2, 0, 0)
    before = await execute(
        database, "SELECT to_jsonb(one) - 'updated_at' FROM genesis_sessions AS one ORDER BY id"
    )
    await execute(database, "DELETE FROM genesis_sessions")
    assert await rebuild(database, write=True) == (2, 2, 2)
    after = await execute(
        database, "SELECT to_jsonb(one) - 'updated_at' FROM genesis_sessions AS one ORDER BY id"
    )
    assert after == before
    assert (await writer.state(kept))["current_stage"] == "STORY_CONCEPTION"


async def test_rebuild_clears_a_row_that_kept_its_content(database: Database, writer: Writer) -> None:
    session_id = await confirmed(writer)
    await erase_session(database, session_id)
    await execute(
        database,
        "UPDATE genesis_sessions SET erased = false, status = 'IN_PROGRESS', current_stage = 'WORLDVIEW',"
        " confirmed_data = '{}' WHERE id = $1",
        UUID(session_id),
    )
    assert await rebuild(database, write=True) == (1, 1, 1)
    assert (await writer.state(session_id))["status"] == "ABANDONED"
    await execute(database, "UPDATE genesis_sessions SET user_id = 'stranger'")
    assert await rebuild(database, write=True) == (1, 1, 1)


async def test_command_concurrent_with_an_erasure_is_decided_again(
    database: Database, writer: Writer
) -> None:
    erased, kept = await confirmed(writer), await confirmed(writer)
    await erase_session(database, erased)
    # Commands that were decided before the erasure committed, with current versions in their rows: only the
    # erasure refuses the first.
    versions = {str(row["id"]): row["version"] for row in await execute(database, _VERSIONS)}
    document = '{"id": "%s", "expected_version": %d, "version": 9, "feedback": [{"feedback": "late"}]}'
    documents = [document % (one, versions[one]) for one in (erased, kept)]
    advanced = await execute(database, SQL["advance"], f"[{', '.join(documents)}]")
    assert [str(row["id"]) for row in advanced] == [kept]


async def test_agent_skips_an_erased_request(database: Database) -> None:
    registry = CollectorRegistry()
    commands = CommandService(database, [genesis], notifier=Notifier(database), source_service="suite")
    agent = ConceptAgent(
        OfflineMuse(),
        database=database,
        commands=commands,
        notifier=Notifier(database),
        settings=TaskSettings(),
        metrics=CommandMetrics(registry),
        guided_runs=GuidedRuns(
            database=database, commands=commands, settings=GenesisSettings(), registry=registry
        ),
    )
    event = build_event_envelope(
        event_type="Genesis.Session.ConceptGenerationRequested",
        aggregate_type="GENESIS_SESSION",
        aggregate_id=str(uuid4()),
        version=2,
        correlation_id=uuid4(),
        payload={"erased": True},
    )

    async def handle(db: AsyncSession) -> None:
        for subscription in agent.subscriptions():
            await subscription.handler(event, EventTransaction(db=db, event=event))

    await database.run_in_transaction(handle)
    assert await execute(database, "SELECT id FROM async_tasks") == []
