"""Define the options that operator commands share: selection of rows, operator's name, output format."""

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
    "Limit",
    "Reason",
    "Yes",
    "actor_name",
    "parse_age_s",
    "require_reason",
    "with_options",
    "with_selection_options",
)

SEQ_MAX: Final = 2**63 - 1
_AGE: Final = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)([smhd])")
_UNIT_S: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


class ActorMissing(RelayboxError):
    """Raised when no operator's name can be recorded with an action.

    Either ``--by`` is blank; or ``--by`` is missing, and the account that runs the process has no name, as
    may be the case in a container.
    """

    error_code = "NOBODY_NAMED"


def parse_age_s(text: str) -> float:
    """Convert an age such as ``90s``, ``15m``, ``2h`` or ``7d`` to seconds.

    Raises:
        BadParameter: *text* is not a number with one of these units; typer exits with code 2.
    """
    match = _AGE.fullmatch(text)
    if match is None:
        raise typer.BadParameter(f"{text!r} is not an age; write 90s, 15m, 2h or 7d")
    return float(match[1]) * _UNIT_S[match[2]]


AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
By = Annotated[
    str | None,
    typer.Option("--by", help="Operator's name, recorded with the action; by default this account's name."),
]
Limit = Annotated[int, typer.Option("--limit", min=1, max=10_000, help="Show at most this number.")]
Reason = Annotated[str | None, typer.Option("--reason", help="The reason, recorded with the action.")]
Yes = Annotated[
    bool, typer.Option("--yes", help="Apply the change; without it, only show what would change.")
]


def _options(
    ids: Annotated[
        list[UUID] | None, typer.Option("--id", help="The row with this id (UUID); may be repeated.")
    ] = None,
    seqs: Annotated[
        list[int] | None,
        typer.Option("--seq", min=1, max=SEQ_MAX, help="The row with this seq (number); may be repeated."),
    ] = None,
    keys: Annotated[
        list[str] | None, typer.Option("--key", help="Rows with this message key; may be repeated.")
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
            help="Rows older than AGE, such as 90s, 15m, 2h or 7d. The age of a row that was sent or skipped "
            "counts from then, of any other row from the time when it was written.",
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


def with_options(build: Callable[..., Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that replaces the first parameter of a command by the parameters of *build*.

    typer derives the options of a command from its signature. The decorated command has the parameters of
    *build* and its own other parameters. It calls *build*, and calls the command with the result as first
    argument.

    Args:
        build: Function that makes one object, such as a :class:`Selection`, of options that several commands
            share.
    """
    options = inspect.signature(build).parameters

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(command).parameters.values())[1:]

        @functools.wraps(command)
        def with_built(**values: Any) -> None:
            built = build(**{name: values.pop(name) for name in options})
            command(built, **values)

        # Keyword-only, because only such parameters may have no default after a parameter with a default.
        parameters = [
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in (*options.values(), *own)
        ]
        with_built.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        with_built.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return with_built

    return decorate


with_selection_options: Final = with_options(_options)


def actor_name(by: str | None) -> str:
    """Return the operator's name to record with an action.

    Args:
        by: The value of ``--by``; None stands for the name of the account that runs this process.

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
        raise ActorMissing("the action is recorded with an operator's name; add --by NAME")
    return name


def require_reason(reason: str) -> None:
    """Check that *reason*, the value of ``--reason``, is not blank.

    Raises:
        BadParameter: *reason* is blank; typer exits with code 2.
    """
    if not reason.strip():
        raise typer.BadParameter(
            "must not be blank: write why, for the record of the action", param_hint="--reason"
        )
