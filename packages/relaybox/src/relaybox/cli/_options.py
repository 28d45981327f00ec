"""Options by which operators name rows, and say who they are."""

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
    "with_selection_options",
)

SEQ_MAX: Final = 2**63 - 1
_AGE: Final = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)([smhd])")
_UNIT_S: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


class ActorMissing(RelayboxError):
    """Raised when an act has nobody to be recorded for: this account has no name, and ``--by`` is missing."""

    error_code = "NOBODY_NAMED"


def parse_age_s(text: str) -> float:
    """Seconds in ``90s``, ``15m``, ``2h``, ``7d``."""
    found = _AGE.fullmatch(text)
    if found is None:
        raise typer.BadParameter(f"{text!r} is no age; write 90s, 15m, 2h or 7d")
    return float(found[1]) * _UNIT_S[found[2]]


AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
By = Annotated[
    str | None, typer.Option("--by", help="Who does it, for the record; by default this account's name.")
]
Yes = Annotated[bool, typer.Option("--yes", help="Really do it; without, only show what would be done.")]


def _options(
    ids: Annotated[
        list[UUID] | None, typer.Option("--id", help="The row with this id; may be repeated.")
    ] = None,
    seqs: Annotated[
        list[int] | None,
        typer.Option("--seq", min=1, max=SEQ_MAX, help="The row with this number; may be repeated."),
    ] = None,
    keys: Annotated[
        list[str] | None, typer.Option("--key", help="Rows of this key; may be repeated.")
    ] = None,
    error_classes: Annotated[
        list[str] | None,
        typer.Option("--error-class", help="Rows that failed by it: RecordTooLarge; may be repeated."),
    ] = None,
    fault: Annotated[
        Fault | None, typer.Option("--fault", help="Rows that failed by their own fault, or by the link's.")
    ] = None,
    older_than_s: Annotated[
        float | None,
        typer.Option(
            "--older-than",
            parser=parse_age_s,
            metavar="AGE",
            help="Sent or skipped, or else written, longer ago: 90s, 15m, 2h, 7d.",
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
    """Give *command*, whose first parameter is a :class:`Selection`, the options that make one.

    The same six stand in five commands; typer reads them off the signature.
    """
    own = list(inspect.signature(command).parameters.values())[1:]
    options = inspect.signature(_options).parameters

    @functools.wraps(command)
    def selected(**values: Any) -> None:
        selection = _options(**{name: values.pop(name) for name in options})
        command(selection, **values)

    # By keyword only: an option that is required may then follow one that is not.
    every = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in (*options.values(), *own)]
    signature = inspect.Signature(every)
    hints = {name: one.annotation for name, one in signature.parameters.items()}
    selected.__signature__ = signature  # type: ignore[attr-defined]
    selected.__annotations__ = hints
    return selected


def actor_name(by: str | None) -> str:
    """Whom an act is recorded for: *by*, else the name of the account that runs this.

    Raises:
        ActorMissing: there is neither.
    """
    name = (by or "").strip()
    if by is None:
        try:
            name = getpass.getuser()
        except (KeyError, OSError):  # an account without a name, as containers have
            name = ""
    if not name:
        raise ActorMissing("say who does this: --by NAME")
    return name
