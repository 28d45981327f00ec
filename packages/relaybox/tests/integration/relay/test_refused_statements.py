"""A relay whose statements PostgreSQL refuses for some time."""

import asyncio

import asyncpg
import pytest
from relaybox.db import Database
from relaybox.local import LocalPostgres
from relaybox.relay import Relay
from relaybox.settings import KafkaSettings, RelaySettings
from structlog.testing import capture_logs

from tests.fixtures.bounds import WAIT_S
from tests.fixtures.outages import read_only
from tests.fixtures.relays import put_events, running, wait_until_all_sent

FAST = RelaySettings(poll_interval=0.05, lease_s=0.3)
_LOST = "relay has lost PostgreSQL, trying again"


async def _logged(logs: list, event: str) -> dict:
    async with asyncio.timeout(WAIT_S):
        while not (found := [entry for entry in logs if entry["event"] == event]):  # noqa: ASYNC110 - a log line
            await asyncio.sleep(0.05)
    return found[0]


@pytest.mark.guarantee("G35")
async def test_relay_waits_while_postgresql_is_read_only(
    database: Database, kafka_settings: KafkaSettings, topic: str, postgres_server: LocalPostgres
) -> None:
    with capture_logs() as logs:
        async with running(Relay(database, kafka_settings, FAST)):
            async with read_only(postgres_server):
                entry = await _logged(logs, _LOST)
            await put_events(database, topic, ["a"])
            await wait_until_all_sent(database)
    assert entry["error_code"] == "DATABASE_UNAVAILABLE"


async def test_relay_continues_after_refused_statements(
    database: Database, kafka_settings: KafkaSettings, topic: str, superuser: asyncpg.Connection
) -> None:
    with capture_logs() as logs:
        async with running(Relay(database, kafka_settings, FAST)):
            await superuser.execute("REVOKE SELECT ON event_outbox FROM relaybox")
            entry = await _logged(logs, "relay cannot read or update the outbox in PostgreSQL, trying again")
            await superuser.execute("GRANT SELECT ON event_outbox TO relaybox")
            await put_events(database, topic, ["a"])
            await wait_until_all_sent(database)
    assert entry["error_code"] == "DATABASE_REFUSED"
    assert "permission denied for table event_outbox" in entry["reason"]


async def test_relay_names_the_functions_that_its_role_may_not_execute(
    database: Database, kafka_settings: KafkaSettings, topic: str, superuser: asyncpg.Connection
) -> None:
    await put_events(database, topic, ["a"])
    with capture_logs() as logs:
        await superuser.execute("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC")
        try:
            async with running(Relay(database, kafka_settings, FAST)):
                entry = await _logged(logs, _LOST)
                await superuser.execute("GRANT EXECUTE ON FUNCTION pg_control_system() TO relaybox")
                await wait_until_all_sent(database)
        finally:
            await superuser.execute("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM relaybox")
            await superuser.execute("GRANT EXECUTE ON FUNCTION pg_control_system() TO PUBLIC")
    assert entry["error_code"] == "DATABASE_REFUSED"
    assert "permission denied for function pg_control_system" in entry["reason"]
    assert "a relay needs EXECUTE on the functions pg_control_system()" in entry["reason"]
