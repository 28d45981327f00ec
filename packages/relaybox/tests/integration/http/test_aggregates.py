"""Aggregates whose snapshot is returned as it is, over HTTP and a real PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Self
from uuid import UUID, uuid4

import httpx2 as httpx
import pytest
from pydantic import BaseModel, SecretStr
from pydantic_core import from_json
from relaybox.commands import Aggregate, Domain, Events
from relaybox.db import Database
from relaybox.events import Event
from relaybox.http import Backbone, SharedSecretVerifier, aggregate_router, create_app, make_token
from relaybox.settings import JwtSettings, PostgresSettings
from structlog.testing import capture_logs

from tests.fixtures.bounds import WAIT_S
from tests.fixtures.counters import counters
from tests.fixtures.event_publishing import insert_event

Json = dict[str, Any]
JWT = JwtSettings(secret=SecretStr("a secret of 32 bytes at the least"))


def headers(subject: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {make_token(JWT, subject)}"}


@pytest.fixture
async def http(database: Database) -> AsyncIterator[httpx.AsyncClient]:
    backbone = Backbone(database, [counters], verifier=SharedSecretVerifier(JWT), service="suite")
    app = create_app(
        title="t", version="1", lifespan=backbone.lifespan, checks={}, registry=backbone.registry
    )
    app.include_router(aggregate_router(backbone, counters), prefix="/counters")
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://test", headers=headers("ada")
        ) as client,
    ):
        yield client


async def test_aggregate_is_created_and_read_by_its_owner(http: httpx.AsyncClient) -> None:
    created = await http.post("/counters", json={"start": 7})
    assert created.status_code == 201
    counter = created.json()
    assert (counter["total"], counter["version"], counter["owner"]) == (7, 1, "ada")
    assert created.headers["location"] == f"/counters/{UUID(counter['id'])}/state"
    assert (await http.get(created.headers["location"])).json() == counter


async def test_commands_of_the_domain_have_a_route(http: httpx.AsyncClient) -> None:
    created = await http.post("/counters", json={})
    where = created.headers["location"].removesuffix("/state")
    sent = await http.post(f"{where}/commands", json={"command_type": "Increase", "payload": {"by": 5}})
    assert sent.status_code == 200
    state = (await http.get(f"{where}/state")).json()
    assert (state["total"], state["version"]) == (5, 2)


async def record_updates(database: Database, counter_id: str, *updates: tuple[int, Json]) -> None:
    """Record events of a counter after its first, each of a payload version with a payload."""
    for version, (event_version, payload) in enumerate(updates, start=2):
        await insert_event(
            database,
            event_type="Suite.Counter.Updated",
            event_version=event_version,
            aggregate_id=counter_id,
            version=version,
            payload=payload,
        )
    async with database.connection() as connection:
        await connection.fetch(
            "UPDATE aggregate_snapshots SET version = $2::int,"
            " state = state || jsonb_build_object('version', $2::int) WHERE id = $1",
            UUID(counter_id),
            len(updates) + 1,
        )


@pytest.mark.guarantee("G84")
async def test_stream_sends_newest_payloads_and_ends_before_an_unknown_one(
    http: httpx.AsyncClient, database: Database
) -> None:
    created = (await http.post("/counters", json={})).json()
    updates = [(1, {"amount": 3}), (2, {"by": 4, "note": ""}), (3, {"secret": 5}), (2, {"by": 6})]
    await record_updates(database, created["id"], *updates)
    with capture_logs() as logs:
        async with asyncio.timeout(WAIT_S):
            stream = await http.get(f"/counters/{created['id']}/events")
            again = await http.get(f"/counters/{created['id']}/events", headers={"Last-Event-ID": "3"})
    events = [line for line in stream.text.splitlines() if line.startswith("data: ")]
    sent = [from_json(line.removeprefix("data: ")) for line in events]
    assert [event["version"] for event in sent] == [1, 2, 3]
    assert [event["payload"] for event in sent[1:]] == [{"by": 3, "note": ""}, {"by": 4, "note": ""}]
    # No event is skipped: a client that reconnects to this release gets nothing more.
    assert "data:" not in again.text
    warnings = [
        one
        for one in logs
        if one["event"] == "live stream ended before an event that this release cannot read"
    ]
    assert {one["error_code"] for one in warnings} == {"EVENT_VERSION_UNKNOWN"}
    assert len(warnings) == 2
    assert "secret" not in str(warnings)


async def test_aggregate_is_not_found_by_other_users(http: httpx.AsyncClient) -> None:
    created = await http.post("/counters", json={})
    foreign = await http.get(created.headers["location"], headers=headers("bob"))
    missing = await http.get(f"/counters/{uuid4()}/state")
    assert (foreign.status_code, missing.status_code) == (404, 404)
    assert foreign.json()["error_code"] == missing.json()["error_code"] == "NOT_FOUND"


async def test_error_for_an_invalid_payload_names_its_fields(http: httpx.AsyncClient) -> None:
    refused = await http.post("/counters", json={"start": "many"})
    assert refused.status_code == 422
    assert refused.json()["details"][0]["field"] == "body.start"


async def test_both_routes_are_documented_with_the_aggregate(http: httpx.AsyncClient) -> None:
    paths = (await http.get("/openapi.json")).json()["paths"]
    created = paths["/counters"]["post"]["responses"]["201"]["content"]["application/json"]["schema"]
    shown = paths["/counters/{counter_id}/state"]["get"]["responses"]["200"]["content"]
    assert created == shown["application/json"]["schema"] == {"$ref": "#/components/schemas/Counter"}


def test_route_of_a_domain_requires_a_creating_command(database: Database) -> None:
    class Thing(Aggregate):
        def apply(self, event: Event) -> Self:
            return self

    class Make(BaseModel):
        pass

    class MakeToo(BaseModel):
        pass

    def make(thing: Thing, command: Make) -> Events:
        return [things.event("Created")()]

    def make_too(thing: Thing, command: MakeToo) -> Events:
        return [things.event("Created")()]

    things = Domain("Suite.Thing", aggregate=Thing, aggregate_type="THING")
    make.__annotations__ = {"thing": Thing, "command": Make}
    make_too.__annotations__ = {"thing": Thing, "command": MakeToo}
    backbone = Backbone(database, [things], verifier=SharedSecretVerifier(JWT))
    with pytest.raises(TypeError, match="declares 0 creating commands"):
        aggregate_router(backbone, things)
    things.command(creates=True)(make)
    things.command(creates=True)(make_too)
    with pytest.raises(TypeError, match="declares 2 creating commands"):
        aggregate_router(backbone, things)


async def test_backbone_is_created_from_the_environment(
    postgres_settings: PostgresSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSTGRES_DB", postgres_settings.db)
    monkeypatch.setenv("JWT_SECRET", JWT.secret.get_secret_value())
    backbone = Backbone.from_environment([counters], service="suite")
    assert backbone.database.settings.db == postgres_settings.db
    assert (await backbone.verifier.verify(make_token(JWT, "ada"))).subject == "ada"


async def test_undeclared_refusal_is_logged_once(http: httpx.AsyncClient) -> None:
    created = await http.post("/counters", json={})
    where = created.headers["location"].removesuffix("/state")
    with capture_logs() as logs:
        for _ in range(3):
            body = {"command_type": "Increase", "payload": {"by": 1_000}}
            assert (await http.post(f"{where}/commands", json=body)).status_code == 422
    warnings = [one for one in logs if one["event"].startswith("refusal not declared")]
    assert [one["command_type"] for one in warnings] == ["Increase"]
