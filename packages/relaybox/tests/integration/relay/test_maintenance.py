"""Maintenance of a relay: neither its errors nor its delays affect the lanes."""

import asyncpg
from relaybox.db import Database
from relaybox.relay import Relay, RelaySignal
from relaybox.settings import KafkaSettings, PostgresSettings, RelaySettings

from tests.fixtures.relays import notify, put_events, running, wait_until_all_sent
from tests.fixtures.signal_recorder import SignalRecorder
from tests.fixtures.waiting import eventually

#: Old rows are looked for every 0.07 s.
RETENTION_H = 0.001
PATIENT_MS = 600_000


async def test_relay_continues_when_old_rows_cannot_be_removed(
    database: Database,
    postgres_settings: PostgresSettings,
    kafka_settings: KafkaSettings,
    topic: str,
    superuser: asyncpg.Connection,
) -> None:
    await superuser.execute("ALTER FUNCTION relaybox_retain_outbox RENAME TO of_another_version")
    relay = Relay(database, kafka_settings, RelaySettings(poll_interval=3_600, retention_h=RETENTION_H))

    async def failed() -> bool:
        return relay.statistics().maintenance_failures_total > 1

    async with running(relay):
        await eventually("retention has failed twice", failed)
        await put_events(database, topic, ["a"])
        await notify(database)
        await wait_until_all_sent(database)


async def test_relay_keeps_its_lanes_while_the_backlog_cannot_be_counted(
    postgres_settings: PostgresSettings, kafka_settings: KafkaSettings, superuser: asyncpg.Connection
) -> None:
    patient = postgres_settings.model_copy(
        update={"lock_timeout_ms": PATIENT_MS, "statement_timeout_ms": PATIENT_MS}
    )
    database, signals = Database(patient), SignalRecorder()
    # The backlog is measured at every heartbeat.
    relay = Relay(database, kafka_settings, RelaySettings(poll_interval=0.01), on_signal=signals)
    async with running(relay):
        await signals.wait_for(RelaySignal.IDLE)
        async with superuser.transaction():
            await superuser.execute("LOCK TABLE event_outbox IN ACCESS EXCLUSIVE MODE")
            leases: set[object] = set()

            async def assigned() -> bool:
                leases.add(await superuser.fetchval("SELECT min(lease_until) FROM relay_lanes"))
                return len(leases) > 3

            await eventually("the leases were assigned three times", assigned)
    await database.close()
