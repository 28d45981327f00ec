"""Define ``relaybox topics``: create the topics of the outbox, check them, raise a message size limit."""

import asyncio
from collections.abc import Iterable
from dataclasses import asdict
from typing import Annotated, Final

import typer
from pydantic_core import to_json

from relaybox.cli._errors import ErrorsAsLines
from relaybox.cli._output import cell_text, new_table, print_json, print_table, run_on_database
from relaybox.operations import CheckedTopic, TopicsCheck, check_topics
from relaybox.outbox import OutboxSettings
from relaybox.settings import KafkaSettings, RelaySettings, load_settings
from relaybox.topics import Replication, ensure_topics, raise_message_limit

__all__ = ("topics_commands",)

#: The largest message that the relay's producer sends: 100 MiB.
_LIMIT_BYTES_MAX: Final = 104_857_600

topics_commands = typer.Typer(
    cls=ErrorsAsLines, no_args_is_help=True, help="Create and check the topics of the outbox."
)


@topics_commands.callback()
def main() -> None:
    """Create and check the topics of the outbox."""


@topics_commands.command()
def create(
    partitions: Annotated[
        int,
        typer.Option(
            "--partitions", min=1, max=10_000, help="Partitions of each new topic; cannot be changed later."
        ),
    ] = 8,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of lines.")] = False,
) -> None:
    """Create the topics of OUTBOX_TOPICS that do not exist; existing topics are not changed.

    RELAY_TOPIC_REPLICATION and RELAY_TOPIC_MIN_ISR set the replication of created topics.

    Raises:
        SettingsError: KAFKA_*, RELAY_* or OUTBOX_TOPICS is malformed.
        TopicsNotReady: The broker is unreachable, or refuses the request.
    """
    topics = load_settings(OutboxSettings).declared()
    replication = Replication.of(load_settings(RelaySettings))
    created = asyncio.run(
        ensure_topics(load_settings(KafkaSettings), topics, partitions=partitions, replication=replication)
    )
    if as_json:
        typer.echo(to_json({"created": created}).decode())
        return
    for line in [f"created {topic}" for topic in created] or ["nothing to create: every topic exists"]:
        typer.echo(line)


@topics_commands.command()
def check(
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object instead of a table.")
    ] = False,
) -> None:
    """Show each topic that Relaybox uses and its faults; exit code 1 if there is a fault.

    Raises:
        SettingsError: POSTGRES_*, KAFKA_*, RELAY_* or OUTBOX_* is malformed.
        BrokerAway: No broker is reachable.
        DatabaseError: PostgreSQL is unreachable or too busy.
    """
    kafka, relay = load_settings(KafkaSettings), load_settings(RelaySettings)
    outbox = load_settings(OutboxSettings)
    report = run_on_database(lambda db: check_topics(db, kafka, relay, outbox))
    if as_json:
        print_json({"ok": report.ok} | asdict(report))
    else:
        _print_check(report)
    if not report.ok:
        raise typer.Exit(1)


@topics_commands.command("raise-limit")
def raise_limit(
    topic: Annotated[str, typer.Argument(help="Name of the topic.")],
    bytes_max: Annotated[
        int,
        typer.Argument(
            metavar="BYTES", min=1_024, max=_LIMIT_BYTES_MAX, help="Size of the largest message in bytes."
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a line.")] = False,
) -> None:
    """Raise max.message.bytes of a topic to BYTES; never lower it.

    Relays read the limit before each attempt to publish, so they need no restart.

    Raises:
        SettingsError: KAFKA_* is malformed.
        TopicsNotReady: The broker is unreachable or refuses the request, or the topic does not exist.
    """
    before = asyncio.run(raise_message_limit(load_settings(KafkaSettings), topic, bytes_max))
    if as_json:
        typer.echo(to_json({"bytes_before": before, "bytes_max": max(before, bytes_max)}).decode())
    elif before >= bytes_max:
        typer.echo(f"nothing to raise: {topic} accepts messages of {before} bytes")
    else:
        typer.echo(f"{topic} accepts messages of {bytes_max} bytes; before: {before}")


def _print_check(report: TopicsCheck) -> None:
    absent = f"; down: {_numbers(report.brokers_absent)}" if report.brokers_absent else ""
    typer.echo(f"brokers up: {_numbers(report.brokers)}{absent}\n")
    figures = ("partitions", "replicas", "min ISR", "offline", "below min ISR", "not in sync", "max bytes")
    table = new_table("topic", "use", *figures, "state", right=figures)
    for topic in report.topics:
        table.add_row(*map(cell_text, _cells(topic)))
    print_table(table)
    for topic in report.topics:
        for fault in topic.faults:
            typer.echo(f"\n{topic.name}: {fault.what}\n  {fault.code}; {fault.remedy}")


def _cells(topic: CheckedTopic) -> list[object]:
    state, faulty = topic.state, "wrong" if topic.faults else "ok"
    if state is None:
        return [topic.name, topic.use, *[None] * 7, "missing" if topic.faults else "not created yet"]
    counts = (state.partitions, state.replicas, state.min_isr)
    away = (len(state.offline), len(state.below_min_isr), len(state.under_replicated))
    return [topic.name, topic.use, *counts, *away, state.bytes_max, faulty]


def _numbers(ids: Iterable[int]) -> str:
    return ", ".join(map(str, ids))
