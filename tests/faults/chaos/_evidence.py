"""Write the evidence of violations: the report's findings, and the tables at the end of the run."""

from pathlib import Path
from typing import Final

from tests.faults.chaos._report import Report
from tests.faults.chaos._servers import ChaosServers

_TABLES: Final = {
    "relay_lanes": "SELECT * FROM relay_lanes ORDER BY lane",
    "relay_members": "SELECT * FROM relay_members",
    "relay_batches": "SELECT * FROM relay_batches ORDER BY number DESC LIMIT 500",
    "event_outbox, not SENT": "SELECT seq, key, payload ->> 'version' AS version, status, attempts,"
    " next_attempt_at, error_data, skipped_at, created_at FROM event_outbox"
    " WHERE status <> 'SENT' ORDER BY seq LIMIT 2000",
    "event_outbox of the keys named above": "SELECT seq, key, payload ->> 'version' AS version,"
    " payload ->> 'event_id' AS event_id, status, attempts, created_at, sent_at FROM event_outbox"
    " WHERE key = ANY ($1::text[]) ORDER BY key, seq LIMIT 20000",
}
_PROBES_MAX: Final = 50
_LETTERS: Final = """
    SELECT id, partition, message_offset, convert_from(message_key, 'UTF8') AS key, event_id, reason,
           error_code, error, attempts, status, parked_at, resolved_at
    FROM dead_letters
"""
_CONSUMER_TABLES: Final = {
    "dead_letters, not REPLAYED": f"{_LETTERS} WHERE status <> 'REPLAYED' ORDER BY id LIMIT 2000",
    "dead_letters of the keys named above": f"{_LETTERS} WHERE convert_from(message_key, 'UTF8')"
    " = ANY ($1::text[]) ORDER BY id LIMIT 20000",
    "chaos_effects of the keys named above": "SELECT * FROM chaos_effects WHERE key = ANY ($1::text[])"
    " ORDER BY key, place, seq LIMIT 20000",
}


async def keep_evidence(report: Report, servers: ChaosServers) -> Path:
    """Write ``evidence.txt`` to the run's directory, beside journal, timeline and the processes' logs."""
    readings = {"read_committed": report.read_committed, "read_uncommitted": report.read_uncommitted}
    lines = [f"{report.as_json()}", *(f"{what}" for what in report.other_violations)]
    compared = {"tables": report.tables} | {name: reading.findings for name, reading in readings.items()}
    if report.consumers is not None:
        compared["effects"] = report.consumers.effects.findings
    for name, findings in compared.items():
        for kind, found in findings.evidence.items():
            lines += [f"\n== {name}: {kind}, {findings.counts[kind]} times", *found]
    for name, reading in readings.items():
        lines += [f"\n== {name}: duplicates, {reading.duplicates}", *map(str, reading.duplicate_records)]
    missing = [probe for probe in report.probes if probe.recovery_s(report.seen_s) is None]
    lines += [f"\n== probes without recovery, {len(missing)}", *map(str, missing[:_PROBES_MAX])]
    if missing:
        lines += ["\n== statistics of their consumer", report.follower_statistics]
    keys = {record.key for reading in readings.values() for record in reading.duplicate_records}
    tables = _TABLES
    if report.consumers is not None:
        keys |= report.consumers.effects.keys
        tables = tables | _CONSUMER_TABLES
    connection = await servers.connect()
    try:
        for name, query in tables.items():
            rows = await connection.fetch(query, *([sorted(keys)] if "$1" in query else []))
            lines += [f"\n== {name}", *(str(dict(row)) for row in rows)]
    finally:
        connection.terminate()
    path = servers.directory / "evidence.txt"
    path.write_text("\n".join(lines) + "\n")
    return path
