"""``relaybox verify``: are the promises kept, on this database and these topics?"""

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

_MEANINGS: Final = {
    Kind.LOST: "sent, or its row removed, and on no topic",
    Kind.DUPLICATED: "more than one record with its ce_id",
    Kind.REORDERED: "behind a later event of its key",
    Kind.SPREAD: "not in the partition of its key's first event",
    Kind.PENDING: "still to be published",
    Kind.FAILED: "its key waits for an operator",
    Kind.SKIPPED: "by an operator",
    Kind.NOT_IN_DATABASE: "published, and lost by PostgreSQL since",
    Kind.UNKNOWN: "records of no event in the tables",
    Kind.BEYOND_RETENTION: "older than what the topic keeps",
}


def verify_command(
    topics: Annotated[
        list[str] | None, typer.Option("--topic", help="Instead of OUTBOX_TOPICS; may be repeated.")
    ] = None,
    key: Annotated[str | None, typer.Option("--key", help="Judge this key alone.")] = None,
    since: Annotated[
        str | None,
        typer.Option("--since", help="Ask for events since 90m, 24h, 7d, or an ISO 8601 time (UTC)."),
    ] = None,
    read_uncommitted: Annotated[
        bool, typer.Option("--read-uncommitted", help="Read as consumers do that see aborted records too.")
    ] = False,
    allow_duplicates: Annotated[
        bool, typer.Option("--allow-duplicates", help="As at-least-once delivery does; they are counted.")
    ] = False,
    limit: Annotated[int, typer.Option("--limit", min=0, max=10_000, help="Keys shown of each kind.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")] = False,
) -> None:
    """Compare tables with topics; exit code 0 only if nothing is lost, duplicated, reordered or spread.

    That includes what a failover of PostgreSQL lost: events that are published and not in the database.

    POSTGRES_*, KAFKA_* and OUTBOX_TOPICS say where. Changes nothing, and may run while everything else does.

    Raises:
        VerifyError: it cannot be told, because the tables or the topics cannot be read.
        DatabaseUnavailable: PostgreSQL is away.
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
        _show(report, allow_duplicates=allow_duplicates)
    if not holds:
        raise typer.Exit(1)


def _parse_since(text: str, now: datetime) -> datetime:
    if text[-1:] in {"s", "m", "h", "d"}:
        return now - timedelta(seconds=parse_age_s(text))
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter("write 90m, 24h, 7d, or a time in ISO 8601", param_hint="--since") from error
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _show(report: Report, *, allow_duplicates: bool) -> None:
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
        typer.secho("The promises are broken.", fg="red", bold=True)
    elif holds and report.duplicates:
        typer.secho("Nothing is lost, reordered or spread; duplicates are allowed.", fg="green")
    elif holds:
        typer.secho("Nothing is lost, duplicated, reordered or spread.", fg="green")


def _summary(report: Report) -> Table:
    made = new_table("events", "keys", "", "which means", right=("events", "keys"))
    made.title = f"{', '.join(report.topics)}: {report.records:,} records, {report.isolation}"
    made.caption = f"tables as of {report.snapshot_at:%Y-%m-%d %H:%M:%S} UTC, {report.elapsed_s:.1f} s"
    made.add_row(f"{report.events:,}", "", "in the tables")
    made.add_row(f"{report.published:,}", "", "published", "of these, on their topic")
    for kind, tally in report.tallies.items():
        broken = kind in VIOLATIONS and tally.events
        cells = (f"{tally.events:,}", f"{tally.keys:,}", kind.value, _MEANINGS[kind])
        made.add_row(*cells, style="bold red" if broken else None)
    return made


def _findings(report: Report) -> Table:
    made = new_table("finding", "key", "events", "the first of them", right=("events",))
    for finding in report.findings:
        examples = Text("\n").join(
            cell_text(_describe_example(finding.topic, one)) for one in finding.examples
        )
        made.add_row(finding.kind.value, cell_text(finding.key), f"{finding.events:,}", examples)
    return made


def _describe_example(topic: str | None, example: Example) -> str:
    parts = [example.event_id or "no event id"]
    if example.version is not None:
        parts.append(f"version {example.version}")
    if example.seq is not None:
        parts.append(f"seq {example.seq}")
    if example.offset is not None:
        parts.append(f"{topic}, partition {example.partition}, offset {example.offset}")
    return ", ".join(parts)
