"""Define ``relaybox flow``: run, inspect and cancel flows; resume their pauses (G44)."""

from dataclasses import asdict
from typing import Annotated, Any, Final
from uuid import UUID

import typer
from pydantic import TypeAdapter, ValidationError
from relaybox_types.enums import TaskStatus

from relaybox.cli._errors import ErrorsAsLines
from relaybox.cli._flow_service import run_flows
from relaybox.cli._flows_output import (
    print_flow,
    print_flows,
    print_other_pauses,
    print_pause,
    print_resumed,
)
from relaybox.cli._options import AsJson, By, Limit, Reason, Yes, actor_name, require_reason
from relaybox.cli._output import print_json, run_on_database, run_with_database
from relaybox.db import Executor
from relaybox.operations import (
    FlowSelection,
    FlowSummary,
    Pause,
    cancel_flow,
    list_flows,
    list_other_pauses,
    preview_flow_cancellation,
    preview_resume,
    resume_flow,
    show_flow,
)

__all__ = ("flow_commands",)

flow_commands = typer.Typer(
    cls=ErrorsAsLines,
    no_args_is_help=True,
    help="Run, inspect and cancel flows; inspect and resume their pauses.",
)
_OBJECT: Final = TypeAdapter(dict[str, Any])

flow_commands.command("run")(run_flows)

FlowId = Annotated[UUID, typer.Argument(metavar="FLOW_ID", help="Id of the flow.")]


@flow_commands.command("list")
def list_(
    names: Annotated[
        list[str] | None,
        typer.Option("--name", help="Flows of this name, or of this name@version; may be repeated."),
    ] = None,
    statuses: Annotated[
        list[TaskStatus] | None, typer.Option("--status", help="Flows in this status; may be repeated.")
    ] = None,
    waiting: Annotated[
        bool, typer.Option("--waiting", help="Only flows that wait for an event, a resume or a time.")
    ] = False,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """List flows by age, then waiting pauses of other engines.

    COMPLETED and CANCELLED flows are listed only with --status, pauses of other engines only without --name
    and --status.
    """
    selection = FlowSelection(names=names or (), statuses=statuses or (), waiting=waiting)

    async def read(db: Executor) -> tuple[list[FlowSummary], list[Pause]]:
        flows = await list_flows(db, selection, flows_max=limit)
        return flows, [] if names or statuses else await list_other_pauses(db, pauses_max=limit)

    flows, pauses = run_on_database(read)
    if as_json:
        print_json({"flows": [asdict(one) for one in flows], "pauses": [asdict(one) for one in pauses]})
        return
    print_flows(flows)
    print_other_pauses(pauses)
    if limit in (len(flows), len(pauses)):
        typer.echo(f"only the first {limit} of a kind are shown; use a larger --limit for more")


@flow_commands.command()
def show(
    flow_id: FlowId,
    with_payload: Annotated[
        bool,
        typer.Option("--payload", help="Show input and results too; they may contain personal data."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show one flow: its steps with their times, its pauses, its error, and the actions of operators."""
    details = run_on_database(lambda db: show_flow(db, flow_id, with_payload=with_payload))
    if as_json:
        print_json(asdict(details))
    else:
        print_flow(details, with_payload=with_payload)


@flow_commands.command()
def resume(
    correlation_id: Annotated[
        str, typer.Argument(metavar="CORRELATION_ID", help="Correlation id of the pause.")
    ],
    payload: Annotated[str, typer.Option("--payload", metavar="JSON", help="JSON object for the flow.")],
    yes: Yes = False,
    by: By = None,
    reason: Reason = None,
    as_json: AsJson = False,
) -> None:
    """Resume the pause CORRELATION_ID, of any engine. The payload is not recorded with the action.

    A resume whose pause was not requested yet is kept for 24 hours. Without --yes, only shows the pause.
    """
    document = _object(payload)
    if not yes:
        found = run_on_database(lambda db: preview_resume(db, correlation_id))
        if as_json:
            print_json({"act": "resume", "done": False, "pause": found and asdict(found)})
        else:
            print_pause(correlation_id, found)
        return
    handle = run_with_database(
        lambda database: resume_flow(database, correlation_id, document, by=actor_name(by), reason=reason)
    )
    if as_json:
        done = {"correlation_id": correlation_id, "status": handle.status, "registered": handle.registered}
        print_json({"act": "resume", "done": True, **done})
    else:
        print_resumed(handle)


@flow_commands.command()
def cancel(
    flow_id: FlowId,
    reason: Annotated[
        str, typer.Option("--reason", help="Why the flow must not continue; recorded with the action.")
    ],
    yes: Yes = False,
    by: By = None,
    as_json: AsJson = False,
) -> None:
    """Cancel a flow and the pause for which it waits; steps that are done keep their effects.

    Without --yes, only shows the flow.
    """
    require_reason(reason)
    if not yes:
        found = run_on_database(lambda db: preview_flow_cancellation(db, flow_id))
        if as_json:
            print_json({"act": "cancel", "done": False, "flow": asdict(found)})
        else:
            print_flows([found])
            typer.echo("dry run: the flow would be cancelled; add --yes to do it")
        return
    done = run_with_database(
        lambda database: cancel_flow(database, flow_id, by=actor_name(by), reason=reason)
    )
    if as_json:
        print_json({"act": "cancel", "done": True, **asdict(done)})
    else:
        pause = "" if done.correlation_id is None else f" with its pause {done.correlation_id}"
        typer.echo(f"cancelled flow {flow_id}{pause}")


def _object(text: str) -> dict[str, Any]:
    try:
        return _OBJECT.validate_json(text)
    except ValidationError as error:
        raise typer.BadParameter("must be a JSON object, such as {}", param_hint="--payload") from error
