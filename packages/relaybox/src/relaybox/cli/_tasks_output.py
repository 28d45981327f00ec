"""Print the results of ``relaybox task`` as tables and lines."""

from collections.abc import Sequence

import typer
from rich.pretty import pprint

from relaybox.cli._output import cell_text, format_age, format_time, new_table, print_table
from relaybox.operations import TaskDetails, TaskRetryPreview, TasksRetried, TaskSummary

__all__ = ("print_cancelled", "print_retried", "print_retry_preview", "print_task", "print_tasks")


def print_tasks(tasks: Sequence[TaskSummary]) -> None:
    """Print a table with a line per task."""
    if not tasks:
        typer.echo("no task matches")
        return
    columns = ("id", "type", "status", "command", "attempts", "age", "error")
    table = new_table(*columns, right=("attempts", "age"))
    for task in tasks:
        cells = (task.id, task.task_type, task.status, task.command_status, task.attempts)
        table.add_row(*map(cell_text, (*cells, format_age(task.created_at), _error(task))))
    print_table(table)


def print_task(details: TaskDetails, *, with_payload: bool) -> None:
    """Print one task with a line per field and action; with *with_payload* also its input and its result."""
    task, table = details.task, new_table("", "")
    table.show_header = False
    fields = {
        "task": task.id,
        "type": task.task_type,
        "status": task.status,
        "progress": f"{task.progress} %",
        "attempts": task.attempts,
        "not before": format_time(task.not_before),
        "lease until": format_time(task.lease_until),
        "error": _error(task),
        "aggregate": task.aggregate_id,
        "command": task.command_id,
        "command status": task.command_status,
        "created": format_time(task.created_at),
        "changed": format_time(task.updated_at),
    }
    for name, value in fields.items():
        if value is not None:
            table.add_row(cell_text(name), cell_text(value))
    for action in details.acts:
        reason = action["reason"] or "no reason given"
        table.add_row("act", cell_text(f"{action['act']} by {action['by']} at {action['at']}: {reason}"))
    print_table(table)
    if with_payload:
        pprint({"input": details.input_data, "result": details.result_data}, expand_all=True)


def print_cancelled(task: TaskSummary, *, done: bool) -> None:
    """Print the task and what happens to its command.

    Args:
        task: The task.
        done: Whether the task was cancelled; False for a dry run.
    """
    if done:
        typer.echo(f"cancelled task {task.id}")
    else:
        print_tasks([task])
        typer.echo("dry run: the task would be cancelled; add --yes to do it")
    if task.command_id is not None and task.is_flow:
        typer.echo(f"note: command {task.command_id}, for which the flow was started, fails with the flow")
    elif task.command_id is not None:
        typer.echo(
            f"note: command {task.command_id}, for which the task was created, stays {task.command_status}; "
            "the application must end the command"
        )


def print_retry_preview(found: TaskRetryPreview) -> None:
    """Print the first tasks that would be retried, their total number, and the number of refused tasks."""
    print_tasks(found.tasks)
    if found.tasks_total > len(found.tasks):
        typer.echo(f"… and {found.tasks_total - len(found.tasks)} more")
    _print_refused(found.refused_total)
    if found.tasks:
        typer.echo(f"dry run: {found.tasks_total} would be retried; add --yes to do it")


def print_retried(done: TasksRetried) -> None:
    """Print the number of tasks that became PENDING, and the number of refused tasks."""
    typer.echo(f"{done.tasks_total} retried" if done.tasks_total else "no task matches; nothing was changed")
    _print_refused(done.refused_total)


def _print_refused(tasks: int) -> None:
    if tasks:
        typer.echo(
            f"note: {tasks} FAILED tasks cannot be retried: their command has ended (it would reject their "
            "result), or their input was erased"
        )


def _error(task: TaskSummary) -> str | None:
    return task.error_code and f"{task.error_code}: {task.error}"
