"""Implement ``relaybox verify``: compare the tables of a database with its topics."""

import asyncio
import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

import typer
from pydantic_core import to_json
from rich.table import Table
from rich.text import Text

from relaybox.cli._options import parse_age_s
from relaybox.cli._output import cell_text, new_table, print_table
from relaybox.outbox import OutboxSettings
from relaybox.settings import KafkaSettings, PostgresSettings, load_settings
from relaybox.verify import VIOLATIONS, Example, Kind, Report, verify

__all__ = ("verify_command",)

_DESCRIPTIONS: Final = {
    Kind.LOST: "SENT, or removed by retention, but not on the topic",
    Kind.DUPLICATED: "more than one record with its ce_id",
    Kind.REORDERED: "after a later event of its key",
    Kind.SPREAD: "not in the partition of its key's first event",
    Kind.PENDING: "not published yet",
    Kind.FAILED: "its key is blocked until an operator retries or skips the row",
    Kind.SKIPPED: "never published, by decision of an operator",
    Kind.NOT_IN_DATABASE: "published, then lost by PostgreSQL",
    Kind.UNKNOWN: "records whose event is not in the tables",
    Kind.BEYOND_RETENTION: "older than the retention of the topic",
}


def verify_command(
    topics: Annotated[
        list[str] | None, typer.Option("--topic", help="Topic to read instead of OUTBOX_TOPICS; repeatable.")
    ] = None,
    key: Annotated[str | None, typer.Option("--key", help="Verify only this key.")] = None,
    since: Annotated[
        str | None,
        typer.Option(
            "--since", help="Verify only events of the last 90m, 24h or 7d, or since a time (ISO 8601)."
        ),
    ] = None,
    read_uncommitted: Annotated[
        bool, typer.Option("--read-uncommitted", help="Read records of aborted transactions too.")
    ] = False,
    allow_duplicates: Annotated[
        bool, typer.Option("--allow-duplicates", help="Accept duplicates; for at-least-once delivery.")
    ] = False,
    limit: Annotated[
        int, typer.Option("--limit", min=0, max=10_000, help="Keys shown for each kind of finding.")
    ] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")] = False,
) -> None:
    """Compare the tables with the topics; exit 0 only if no event is lost, duplicated, reordered or spread.

    Spread means that an event is in another partition than the first event of its key. Also reports events
    that a failover of PostgreSQL lost: published, but not in the database. Reads POSTGRES_*, KAFKA_* and
    OUTBOX_TOPICS. Changes nothing, and may run while services run.

    Raises:
        VerifyError: The tables or the topics cannot be read, so there is no result.
        DatabaseUnavailable: PostgreSQL is unreachable.
    """
    report = asyncio.run(
        verify(
            load_settings(PostgresSettings),
            load_settings(KafkaSettings),
            topics=topics or load_settings(OutboxSettings).declared(),
            key=key,
            since=None if since is None else _parse_since(since, datetime.now(UTC)),
            isolation="read_uncommitted" if read_uncommitted else "read_committed",
            keys_max=limit,
        )
    )
    holds = report.holds(allow_duplicates=allow_duplicates)
    if as_json:
        typer.echo(to_json({"holds": holds, "remedy": report.remedy, **dataclasses.asdict(report)}).decode())
    else:
        _print_report(report, allow_duplicates=allow_duplicates)
    if not holds:
        raise typer.Exit(1)


def _parse_since(text: str, now: datetime) -> datetime:
    if text[-1:] in {"s", "m", "h", "d"}:
        return now - timedelta(seconds=parse_age_s(text))
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(
            f"{text!r} is not a time; write 90m, 24h, 7d, or a time in ISO 8601", param_hint="--since"
        ) from error
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _print_report(report: Report, *, allow_duplicates: bool) -> None:
    print_table(_summary(report))
    if report.findings:
        typer.echo()
        print_table(_findings(report))
    typer.echo()
    holds = report.holds(allow_duplicates=allow_duplicates)
    if report.remedy is not None:
        lost = report.tallies[Kind.NOT_IN_DATABASE].events
        typer.secho(
            f"PostgreSQL has lost {lost:,} published event{'s' * (lost > 1)}: see {report.remedy}.",
            fg="red",
            bold=True,
        )
    if not report.delivery_holds(allow_duplicates=allow_duplicates):
        typer.secho("Delivery guarantees are violated.", fg="red", bold=True)
    elif holds and report.duplicates:
        typer.secho("No event is lost, reordered or spread; duplicates are allowed.", fg="green")
    elif holds:
        typer.secho("No event is lost, duplicated, reordered or spread.", fg="green")


def _summary(report: Report) -> Table:
    table = new_table("events", "keys", "", "description", right=("events", "keys"))
    table.title = f"{', '.join(report.topics)}: {report.records:,} records, {report.isolation}"
    table.caption = f"tables as of {report.snapshot_at:%Y-%m-%d %H:%M:%S} UTC, {report.elapsed_s:.1f} s"
    table.add_row(f"{report.events:,}", "", "in the tables")
    table.add_row(f"{report.published:,}", "", "published", "of these, on their topic")
    for kind, tally in report.tallies.items():
        violated = kind in VIOLATIONS and tally.events
        cells = (f"{tally.events:,}", f"{tally.keys:,}", kind.value, _DESCRIPTIONS[kind])
        table.add_row(*cells, style="bold red" if violated else None)
    return table


def _findings(report: Report) -> Table:
    table = new_table("finding", "key", "events", "first events", right=("events",))
    for finding in report.findings:
        examples = Text("\n").join(
            cell_text(_describe_example(finding.topic, example)) for example in finding.examples
        )
        table.add_row(finding.kind.value, cell_text(finding.key), f"{finding.events:,}", examples)
    return table


def _describe_example(topic: str | None, example: Example) -> str:
    parts = [example.event_id or "no event id"]
    if example.version is not None:
        parts.append(f"version {example.version}")
    if example.seq is not None:
        parts.append(f"seq {example.seq}")
    if example.offset is not None:
        parts.append(f"{topic}, partition {example.partition}, offset {example.offset}")
    return ", ".join(parts)
