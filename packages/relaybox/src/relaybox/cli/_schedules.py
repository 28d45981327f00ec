"""Define ``relaybox schedule``: inspect periodic work, and remove schedules that no program declares."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

import typer

from relaybox.cli._errors import ErrorsAsLines
from relaybox.cli._options import AsJson, By, Limit, Yes, actor_name, require_reason
from relaybox.cli._output import (
    cell_text,
    format_age,
    format_duration,
    new_table,
    print_json,
    print_table,
    run_on_database,
    run_with_database,
)
from relaybox.operations import (
    ScheduleSummary,
    list_schedules,
    preview_schedule_removal,
    remove_schedule,
)

__all__ = ("schedule_commands",)

schedule_commands = typer.Typer(
    cls=ErrorsAsLines,
    no_args_is_help=True,
    help="Inspect periodic work: next tick, last outcome; remove schedules that no program declares.",
)


@schedule_commands.callback()
def schedule() -> None:
    """Inspect periodic work: next tick, last outcome; remove schedules that no program declares."""


@schedule_commands.command("list")
def list_(
    limit: Limit = 200,
    as_json: AsJson = False,
) -> None:
    """List recurring tasks and the jobs that services share, with the last outcome and the next tick."""
    schedules = run_on_database(lambda db: list_schedules(db, schedules_max=limit))
    if as_json:
        print_json([asdict(one) for one in schedules])
        return
    _print_schedules(schedules)
    if len(schedules) == limit:
        typer.echo(f"only the first {limit} schedules are shown; use a larger --limit for more")


@schedule_commands.command()
def remove(
    name: Annotated[str, typer.Argument(help="Name of the schedule.")],
    reason: Annotated[
        str, typer.Option("--reason", help="Why the schedule is not needed; recorded with the action.")
    ],
    yes: Yes = False,
    by: By = None,
    as_json: AsJson = False,
) -> None:
    """Remove a schedule that no program declares any more; without --yes, only report if it exists.

    A running process that still declares the schedule creates no more tasks of it until the process is
    restarted. The schedule of a shared job is recorded again by the next run of the job.
    """
    require_reason(reason)
    if yes:
        run_with_database(lambda database: remove_schedule(database, name, by=actor_name(by), reason=reason))
    else:
        run_on_database(lambda db: preview_schedule_removal(db, name))
    if as_json:
        print_json({"act": "remove", "done": yes, "schedule": name})
    else:
        typer.echo(f"removed {name}" if yes else f"dry run: {name} would be removed; add --yes to do it")
        typer.echo(
            "a running process that still declares the schedule creates no more tasks of it until the "
            "process is restarted; the schedule of a shared job is recorded again by the next run of the job"
        )


def _print_schedules(schedules: Sequence[ScheduleSummary]) -> None:
    if not schedules:
        typer.echo("there is no schedule")
        return
    columns = ("name", "schedule", "last tick", "last outcome", "took", "next tick", "error")
    table = new_table(*columns, right=("last tick", "took", "next tick"))
    for one in schedules:
        cells = (
            one.name,
            f"every {one.interval_s:g} s" if one.cron is None else f"{one.cron} {one.timezone}",
            format_age(one.last_tick_at),
            one.task_status or one.last_outcome,
            format_duration(one.last_duration_s),
            f"overdue {format_duration(one.overdue_s)}" if one.overdue_s else format_age(one.next_tick_at),
            one.error_code and f"{one.error_code}: {one.error}",
        )
        table.add_row(*map(cell_text, cells))
    print_table(table)
