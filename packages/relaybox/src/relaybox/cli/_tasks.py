"""Define ``relaybox task``: inspect tasks; cancel them, and retry those that failed (G43)."""

from dataclasses import asdict, replace
from typing import Annotated, Final
from uuid import UUID

import typer
from relaybox_types.enums import TaskStatus

from relaybox.cli._errors import ErrorsAsLines
from relaybox.cli._options import AsJson, By, Limit, Reason, Yes, actor_name, require_reason, with_options
from relaybox.cli._output import print_json, run_on_database, run_with_database
from relaybox.cli._tasks_output import (
    print_cancelled,
    print_retried,
    print_retry_preview,
    print_task,
    print_tasks,
)
from relaybox.operations import (
    SelectionEmpty,
    TaskSelection,
    cancel_open_task,
    list_tasks,
    preview_task_cancellation,
    preview_task_retry,
    retry_tasks,
    show_task,
)

__all__ = ("task_commands",)

task_commands = typer.Typer(
    cls=ErrorsAsLines, no_args_is_help=True, help="Inspect tasks; cancel them, and retry those that failed."
)
_PREVIEW_TASKS: Final = 20

TaskId = Annotated[UUID, typer.Argument(metavar="TASK_ID", help="Id of the task.")]


def _options(
    ids: Annotated[
        list[UUID] | None, typer.Option("--id", help="The task with this id; may be repeated.")
    ] = None,
    types: Annotated[
        list[str] | None,
        typer.Option(
            "--type", help="Tasks of this type, such as compose_proposal or Shop.Refund@1; may be repeated."
        ),
    ] = None,
) -> TaskSelection:
    return TaskSelection(ids=ids or (), types=types or ())


with_task_options: Final = with_options(_options)


@task_commands.command("list")
@with_task_options
def list_(
    selection: TaskSelection,
    statuses: Annotated[
        list[TaskStatus] | None, typer.Option("--status", help="Tasks in this status; may be repeated.")
    ] = None,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """List tasks by age, also tasks of flows; COMPLETED and CANCELLED tasks only with --id or --status."""
    chosen = replace(selection, statuses=statuses or ())
    tasks = run_on_database(lambda db: list_tasks(db, chosen, tasks_max=limit))
    if as_json:
        print_json([asdict(task) for task in tasks])
        return
    print_tasks(tasks)
    if len(tasks) == limit:
        typer.echo(f"only the first {limit} tasks are shown; use a larger --limit for more")


@task_commands.command()
def show(
    task_id: TaskId,
    with_payload: Annotated[
        bool,
        typer.Option("--payload", help="Show input and result too; they may contain personal data."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show one task: its command, its lease, its error, and the actions of operators on it."""
    details = run_on_database(lambda db: show_task(db, task_id, with_payload=with_payload))
    if as_json:
        print_json(asdict(details))
    else:
        print_task(details, with_payload=with_payload)


@task_commands.command()
def cancel(
    task_id: TaskId,
    reason: Annotated[
        str, typer.Option("--reason", help="Why the task must not continue; recorded with the action.")
    ],
    yes: Yes = False,
    by: By = None,
    as_json: AsJson = False,
) -> None:
    """Cancel a task that has not ended; a result that arrives later is rejected.

    The command of a flow fails. The command of any other task stays as it is, because only the application
    can end it. Without --yes, only shows the task.
    """
    require_reason(reason)
    if yes:
        found = run_with_database(
            lambda database: cancel_open_task(database, task_id, by=actor_name(by), reason=reason)
        )
    else:
        found = run_on_database(lambda db: preview_task_cancellation(db, task_id))
    if as_json:
        print_json({"act": "cancel", "done": yes, "task": asdict(found)})
    else:
        print_cancelled(found, done=yes)


@task_commands.command()
@with_task_options
def retry(
    selection: TaskSelection,
    select_all: Annotated[
        bool, typer.Option("--all", help="Select every task, if no other option selects tasks.")
    ] = False,
    yes: Yes = False,
    by: By = None,
    reason: Reason = None,
    as_json: AsJson = False,
) -> None:
    """Make FAILED tasks PENDING, with attempts 0; a flow continues at the step that failed.

    Tasks whose command has ended are refused: their result would be rejected. Without --yes, only shows the
    tasks.
    """
    if selection.selects_every_task() and not select_all:
        raise SelectionEmpty("no tasks are selected; use --id, --type or --all")
    if yes:
        done = run_with_database(
            lambda database: retry_tasks(database, selection, by=actor_name(by), reason=reason)
        )
        if as_json:
            print_json({"act": "retry", "done": True, **asdict(done)})
        else:
            print_retried(done)
        return
    found = run_on_database(lambda db: preview_task_retry(db, selection, tasks_max=_PREVIEW_TASKS))
    if as_json:
        print_json({"act": "retry", "done": False, **asdict(found)})
    else:
        print_retry_preview(found)
