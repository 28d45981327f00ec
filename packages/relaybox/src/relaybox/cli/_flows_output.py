"""Print the results of ``relaybox flow`` as tables and lines."""

from collections.abc import Sequence

import typer
from relaybox_types.enums import HandleStatus
from rich.pretty import pprint

from relaybox.cli._output import cell_text, format_age, format_time, new_table, print_table
from relaybox.flows import Handle
from relaybox.operations import FlowDetails, FlowStep, FlowSummary, Pause

__all__ = ("print_flow", "print_flows", "print_other_pauses", "print_pause", "print_resumed")


def print_flows(flows: Sequence[FlowSummary]) -> None:
    """Print a table with a line per flow."""
    if not flows:
        typer.echo("no flow matches")
        return
    columns = ("id", "name", "version", "status", "waits for", "until", "steps", "age", "error")
    table = new_table(*columns, right=("version", "until", "steps", "age"))
    for one in flows:
        cells = (one.id, one.name, one.version, one.status, _wait(one), format_age(one.waits_until))
        table.add_row(*map(cell_text, (*cells, one.steps, format_age(one.created_at), _error(one))))
    print_table(table)


def print_other_pauses(pauses: Sequence[Pause]) -> None:
    """Print a table with a line per pause of another flow engine, such as Prefect; nothing if none exist."""
    if pauses:
        typer.echo("\npauses of other engines:")
        _print_pauses(pauses)


def print_flow(details: FlowDetails, *, with_payload: bool) -> None:
    """Print one flow with a line per field, step, wait that has not ended, and action of an operator.

    Args:
        details: The flow.
        with_payload: Whether to print also the input and the result of the flow, and the results of its
            steps.
    """
    one, table = details.flow, new_table("", "")
    table.show_header = False
    fields = {
        "flow": one.id,
        "name": one.name,
        "version": one.version,
        "status": one.status,
        "until": format_time(one.waits_until),
        "attempts": one.attempts or None,
        "error": one.error_code and f"at step {one.steps + 1}: {_error(one)}",
        "started": format_time(one.created_at),
        "changed": format_time(one.updated_at),
    }
    for name, value in fields.items():
        if value is not None:
            table.add_row(cell_text(name), cell_text(value))
    open_pauses = {pause.correlation_id: pause for pause in details.pauses}
    for step in details.steps:
        pause = open_pauses.pop(f"{one.id}/{step.name}", None)
        table.add_row(f"step {step.position + 1}", cell_text(f"{step.name}: {_ended(step, pause)}"))
    for pause in open_pauses.values():
        name = pause.correlation_id.removeprefix(f"{one.id}/")
        table.add_row("wait", cell_text(f"{name}: {_state(pause)}"))
    for action in details.acts:
        reason = action["reason"] or "no reason given"
        table.add_row("act", cell_text(f"{action['act']} by {action['by']} at {action['at']}: {reason}"))
    print_table(table)
    if with_payload:
        results = {step.name: step.result for step in details.steps}
        documents = {"input": details.input_data, "steps": results, "result": details.result_data}
        pprint(documents, expand_all=True)


def print_pause(correlation_id: str, pause: Pause | None) -> None:
    """Print the pause that would be resumed; for None, print that the resume would be kept for 24 hours."""
    if pause is None:
        typer.echo(
            f"no pause has the correlation id {correlation_id!r}\n"
            "dry run: the resume would be kept for 24 hours; check the correlation id, or add --yes to do it"
        )
        return
    _print_pauses([pause])
    typer.echo("dry run: the pause would be resumed; add --yes to do it")


def print_resumed(handle: Handle) -> None:
    """Print that the pause was resumed; or, if the resume is kept, until when and why."""
    if handle.status is HandleStatus.RESUMED:
        typer.echo(f"resumed {handle.correlation_id}")
    else:
        until = handle.expires_at.isoformat(timespec="seconds")
        why = "its pause is not confirmed yet" if handle.registered else "no pause has this id yet"
        typer.echo(f"resume of {handle.correlation_id} kept until {until}: {why}")


def _print_pauses(pauses: Sequence[Pause]) -> None:
    table = new_table("correlation id", "status", "event", "expires", "age", right=("expires", "age"))
    for pause in pauses:
        event = _event(pause)
        state = "EXPIRED, cancelled" if pause.cancelled else pause.status
        if pause.status is HandleStatus.PENDING_PAUSE and pause.has_payload:
            state = f"{state}, resume kept"
        cells = (pause.correlation_id, state, event, format_age(pause.expires_at))
        table.add_row(*map(cell_text, (*cells, format_age(pause.created_at))))
    print_table(table)


def _ended(step: FlowStep, pause: Pause | None) -> str:
    """Describe when *step* ended; for a wait also how it ended.

    *pause* is the pause of a step that is a wait, and None for any other step.
    """
    ended = format_time(step.ended_at)
    if pause is None:
        return f"done {ended}"
    how = "cancelled" if pause.cancelled else pause.status.lower()
    if pause.status is HandleStatus.RESUMED and (event := _event(pause)) is not None:
        how = f"{how} by {event}"
    return f"{how} {ended}; began {format_time(pause.created_at)}"


def _state(pause: Pause) -> str:
    """Describe the *pause* of a wait that has not ended: its state, its event, when it began and expires."""
    if not pause.registered:
        return f"not begun; a resume is kept until {format_time(pause.expires_at)}"
    state = "cancelled" if pause.cancelled else pause.status
    began = f"began {format_time(pause.created_at)}"
    return f"{state}, for {_event(pause) or 'a resume'}; {began}; until {format_time(pause.expires_at)}"


def _event(pause: Pause) -> str | None:
    return None if pause.event_type is None else f"{pause.event_type} of {pause.key}"


def _wait(one: FlowSummary) -> str | None:
    return one.correlation_id or (None if one.waits_until is None else "a time")


def _error(one: FlowSummary) -> str | None:
    return one.error_code and f"{one.error_code}: {one.error}"
