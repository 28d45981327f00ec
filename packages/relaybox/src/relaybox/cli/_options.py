"""Options shared by operator commands: the selection of rows, the operator's name, and the output format."""

import functools
import getpass
import inspect
import re
from collections.abc import Callable
from typing import Annotated, Any, Final
from uuid import UUID

import typer

from relaybox.errors import RelayboxError
from relaybox.operations import Fault, Selection

__all__ = (
    "SEQ_MAX",
    "ActorMissing",
    "AsJson",
    "By",
    "Yes",
    "actor_name",
    "parse_age_s",
    "require_reason",
    "with_selection_options",
)

SEQ_MAX: Final = 2**63 - 1
_AGE: Final = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)([smhd])")
_UNIT_S: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


class ActorMissing(RelayboxError):
    """Raised when an action cannot be recorded: ``--by`` is missing and this account has no name."""

    error_code = "NOBODY_NAMED"


def parse_age_s(text: str) -> float:
    """Convert ``90s``, ``15m``, ``2h`` or ``7d`` to seconds."""
    match = _AGE.fullmatch(text)
    if match is None:
        raise typer.BadParameter(f"{text!r} is not an age; write 90s, 15m, 2h or 7d")
    return float(match[1]) * _UNIT_S[match[2]]


AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
By = Annotated[
    str | None,
    typer.Option("--by", help="Name of the operator, for the record; by default the name of this account."),
]
Yes = Annotated[
    bool, typer.Option("--yes", help="Apply the change; without it, only show what would change.")
]


def _options(
    ids: Annotated[
        list[UUID] | None, typer.Option("--id", help="The row with this id; may be repeated.")
    ] = None,
    seqs: Annotated[
        list[int] | None,
        typer.Option("--seq", min=1, max=SEQ_MAX, help="The row with this number; may be repeated."),
    ] = None,
    keys: Annotated[
        list[str] | None, typer.Option("--key", help="Rows with this key; may be repeated.")
    ] = None,
    error_classes: Annotated[
        list[str] | None,
        typer.Option(
            "--error-class", help="Rows that failed with this error, such as RecordTooLarge; may be repeated."
        ),
    ] = None,
    fault: Annotated[
        Fault | None,
        typer.Option("--fault", help="Rows that failed because of the row, or because of the link to Kafka."),
    ] = None,
    older_than_s: Annotated[
        float | None,
        typer.Option(
            "--older-than",
            parser=parse_age_s,
            metavar="AGE",
            help="Rows that were sent or skipped, or else written, longer ago than 90s, 15m, 2h, 7d.",
        ),
    ] = None,
) -> Selection:
    return Selection(
        ids=ids or (),
        seqs=seqs or (),
        keys=keys or (),
        error_classes=error_classes or (),
        fault=fault,
        older_than_s=older_than_s,
    )


def with_selection_options(command: Callable[..., None]) -> Callable[..., None]:
    """Replace the first parameter of *command*, a :class:`Selection`, by the six options that build it.

    Five commands have these options. typer reads options from the signature, so the signature is replaced.
    """
    own = list(inspect.signature(command).parameters.values())[1:]
    options = inspect.signature(_options).parameters

    @functools.wraps(command)
    def with_selection(**values: Any) -> None:
        selection = _options(**{name: values.pop(name) for name in options})
        command(selection, **values)

    # Keyword-only parameters: a required option may then follow an optional one.
    parameters = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in (*options.values(), *own)
    ]
    with_selection.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    with_selection.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return with_selection


def actor_name(by: str | None) -> str:
    """Return the name to record an action under: *by*, else the name of the account that runs this process.

    Raises:
        ActorMissing: *by* is blank, or is None and the account has no name.
    """
    name = (by or "").strip()
    if by is None:
        try:
            name = getpass.getuser()
        except (KeyError, OSError):  # accounts in containers may have no name
            name = ""
    if not name:
        raise ActorMissing("the record needs the name of an operator; give it with --by NAME")
    return name


def require_reason(reason: str) -> None:
    """Check that *reason* is not blank.

    Raises:
        BadParameter: It is blank; typer exits with code 2.
    """
    if not reason.strip():
        raise typer.BadParameter("must not be blank: the reason is recorded", param_hint="--reason")
