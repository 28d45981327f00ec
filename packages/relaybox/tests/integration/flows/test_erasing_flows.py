"""Erasing an aggregate removes the content of its events that are kept for flows."""

import asyncpg
from pydantic_core import from_json
from relaybox.db import Database
from relaybox.events import erase

from tests.fixtures.event_publishing import new_event

_FLOW = """
    WITH task AS (
        INSERT INTO async_tasks (task_type, status) VALUES ('flow', 'COMPLETED') RETURNING id
    ), kept AS (
        INSERT INTO flow_events (event_type, key, envelope) VALUES ('A.B.Done', $1, $2::text::jsonb)
    ), wait AS (
        INSERT INTO flow_waits (task_id, correlation_id, event_type, key, event)
        SELECT id, id || '/wait', 'A.B.Done', $1, $2::text::jsonb FROM task
    )
    INSERT INTO flow_steps (task_id, position, name, result)
    SELECT id, 0, 'wait', jsonb_build_object('value', $2::text::jsonb) FROM task
"""


async def test_flows_lose_the_content_of_their_events(
    database: Database, superuser: asyncpg.Connection
) -> None:
    event, other = (
        new_event(aggregate_id=one, target_id="t-1", metadata={"user_id": "ada", "note": "secret"})
        for one in ("c-1", "c-2")
    )
    for one in (event, other):
        await superuser.execute(_FLOW, one.aggregate_id, one.model_dump_json())
    erasure = await database.run_in_transaction(
        lambda db: erase(db, "COUNTER", ["c-1"], actor="ann", reason="purged"), isolation="READ COMMITTED"
    )
    assert erasure.flow_events == 1
    without_content = {"payload": {"erased": True}, "metadata": {"user_id": "ada"}, "target_id": None}
    gone = event.model_copy(update=without_content).model_dump(mode="json")
    queries = {
        "SELECT envelope::text FROM flow_events ORDER BY id": ([gone, other.model_dump(mode="json")]),
        "SELECT event::text FROM flow_waits WHERE key = 'c-1'": [gone],
        """SELECT result::text FROM flow_steps WHERE result::text LIKE '%"c-1"%'""": [{"value": gone}],
    }
    for query, wanted in queries.items():
        assert [from_json(row[0]) for row in await superuser.fetch(query)] == wanted
