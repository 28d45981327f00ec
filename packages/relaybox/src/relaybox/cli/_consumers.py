"""Implement ``relaybox consumer status`` and ``lag``: inspect consumer groups."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Annotated

import typer

from relaybox.cli._options import AsJson
from relaybox.cli._output import (
    cell_text,
    format_duration,
    new_table,
    print_json,
    print_table,
    run_on_database,
)
from relaybox.operations import (
    CONSUMER_LETTERS_MAX,
    ConsumerLag,
    ConsumerStatus,
    GroupState,
    consumer_lag,
    consumer_status,
    list_consumers,
)
from relaybox.settings import KafkaSettings, load_settings

__all__ = ("group_lag", "group_status")


def group_status(
    group: Annotated[
        str | None, typer.Argument(metavar="[GROUP]", help="Name of the group; by default all groups.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show a group's state, members, lag, dead letters, and faults with remedies; without GROUP, all groups.

    The list has the groups that have consumed events or parked messages in this database, 100 at most. The
    exit code is 1 if Kafka refuses to describe one of them.
    """
    kafka = load_settings(KafkaSettings)
    if group is None:
        statuses = run_on_database(lambda db: list_consumers(db, kafka))
        if as_json:
            print_json([asdict(status) for status in statuses])
        else:
            _print_groups(statuses)
        unreadable = [one for one in statuses if one.state is GroupState.UNREADABLE]
        for one in unreadable:
            for fault in one.faults:
                typer.echo(f"error: {cell_text(fault.what)}; {cell_text(fault.remedy)}", err=True)
        if unreadable:
            raise typer.Exit(1)
        return
    name = group
    status = run_on_database(lambda db: consumer_status(db, kafka, name))
    if as_json:
        print_json(asdict(status))
    else:
        _print_group(status)


def group_lag(
    group: Annotated[str, typer.Argument(metavar="GROUP", help="Name of the group.")],
    as_json: AsJson = False,
) -> None:
    """Show the lag of a group in each partition: its unfinished messages, and the age of the oldest one.

    Reads Kafka only, so it also works while PostgreSQL is down.
    """
    found = asyncio.run(consumer_lag(load_settings(KafkaSettings), group))
    if as_json:
        print_json(asdict(found))
    else:
        _print_lag(found)


def _print_groups(statuses: Sequence[ConsumerStatus]) -> None:
    if not statuses:
        typer.echo(
            "no group has consumed an event or parked a message; a new group is not listed, show it with: "
            "relaybox consumer status GROUP"
        )
        return
    figures = ("members", "partitions", "messages", "oldest", "letters", "keys blocked")
    table = new_table("group", "state", *figures, "faults", right=figures)
    for status in statuses:
        counts = (len(status.members), status.partitions, status.lag_messages)
        oldest = format_duration(status.lag_seconds) if status.lag_messages else None
        letters = (_counted(status.letters), status.keys_blocked)
        codes = ", ".join(fault.code for fault in status.faults) or "none"
        cells = (status.group, status.state, *counts, oldest, *letters, codes)
        table.add_row(*map(cell_text, cells))
    print_table(table)
    if any(status.faults for status in statuses):
        typer.echo("`relaybox consumer status GROUP` shows what to do")


def _print_group(status: ConsumerStatus) -> None:
    parts = (
        f"group {status.group}: {status.state}",
        f"{len(status.members)} members",
        f"{status.partitions} partitions",
        _waiting(status.lag_messages, status.lag_seconds),
        f"{_counted(status.letters)} dead letters",
        f"{status.keys_blocked} keys blocked",
    )
    typer.echo(cell_text(", ".join(parts)))
    if status.members:
        table = new_table("member", "host", "partitions")
        for member in status.members:
            table.add_row(*map(cell_text, (member.member_id, member.host, _partitions(member.partitions))))
        typer.echo()
        print_table(table)
    for fault in status.faults:
        typer.echo(f"\n{fault.code}: {cell_text(fault.what)}\n  {cell_text(fault.remedy)}")
    if not status.faults:
        typer.echo("\nno fault: nothing to do")


def _print_lag(found: ConsumerLag) -> None:
    if not found.partitions:
        typer.echo(
            "no partition to show: the group has committed no offset, or this Kafka account lacks the right "
            "DESCRIBE on its topics"
        )
    figures = ("partition", "committed", "end", "messages", "seconds")
    table = new_table("topic", *figures, "member", right=figures)
    for each in found.partitions:
        seconds = None if each.seconds is None else f"{each.seconds:.1f}"
        offsets = (each.partition, each.committed, each.end, each.messages)
        table.add_row(*map(cell_text, (each.topic, *offsets, seconds, each.member)))
    print_table(table)
    if found.topics_missing:
        typer.echo(
            f"Kafka shows no topic {cell_text(', '.join(found.topics_missing))}: check its name and rights"
        )
    if found.partitions_total > len(found.partitions):
        typer.echo(f"only the first {len(found.partitions)} of {found.partitions_total} partitions are shown")
    if found.ages_missing is not None:
        typer.echo(f"some ages are unknown: {cell_text(found.ages_missing)}")
    typer.echo(f"{found.state}: {_waiting(found.messages, found.seconds)}")


def _partitions(numbers: Mapping[str, Sequence[int]]) -> str:
    return "; ".join(f"{topic} {', '.join(map(str, each))}" for topic, each in numbers.items())


def _waiting(messages: int | None, seconds: float | None) -> str:
    if not messages:
        return "no message waits"
    age = "an unknown time" if seconds is None else format_duration(seconds)
    return f"messages that wait: {messages}, the oldest for {age}"


def _counted(letters: int) -> str:
    return f"{letters}+" if letters >= CONSUMER_LETTERS_MAX else str(letters)
