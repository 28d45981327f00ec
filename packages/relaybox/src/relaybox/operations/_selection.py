"""Which rows an operator means."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any
from uuid import UUID

from pydantic_core import to_json

__all__ = ("Fault", "Selection", "State")


class Fault(StrEnum):
    """Whose fault a failure was."""

    ROW = "row"
    LINK = "link"


class State(StrEnum):
    """What becomes of a row next."""

    #: A relay publishes it when its turn comes.
    PENDING = "pending"
    #: It failed, and a relay tries it again by itself.
    RETRYING = "retrying"
    #: It failed too often; its key waits for an operator, or, by the link's fault, for the broker.
    FAILED = "failed"
    #: An operator decided that it is never published.
    SKIPPED = "skipped"
    #: The broker has acknowledged it.
    SENT = "sent"


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """Rows that meet every condition; a condition left empty asks nothing."""

    ids: Sequence[UUID] = ()
    seqs: Sequence[int] = ()
    keys: Sequence[str] = ()
    #: Classes in ``error_data``: ``RecordTooLarge``.
    error_classes: Sequence[str] = ()
    fault: Fault | None = None
    #: Seconds since it was sent or skipped; of any other row, since it was written.
    older_than_s: float | None = None

    def names_rows(self) -> bool:
        """Whether single rows are named, so that finding none is a mistake."""
        return bool(self.ids or self.seqs)

    def selects_every_row(self) -> bool:
        """Whether no condition is left that could spare a row."""
        return not (self.names_rows() or self.keys or self.error_classes or self.fault or self.older_than_s)

    def arguments(self) -> tuple[Any, ...]:
        """The six parameters of the query ``selected``."""
        lists = (self.ids, self.seqs, self.keys, self.error_classes)
        return (*(list(one) or None for one in lists), self.fault, self.older_than_s)

    def as_json(self) -> str:
        """The conditions that ask something, as JSON: for the record of an act."""
        return to_json(
            {name: value for name, value in asdict(self).items() if value not in (None, ())}
        ).decode()
