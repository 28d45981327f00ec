"""Define the errors of commands: a command that fails with one of them has not been recorded.

::

    RelayboxError
    └── CommandError
        ├── AggregateNotFound    no such aggregate, or it belongs to another principal (same response, G81)
        ├── UnknownCommand       no domain declares this command type
        ├── PayloadInvalid       the payload does not fit the command
        ├── DuplicateCommand     a command of the same type is pending; the error has the id of that command
        ├── StaleVersion         the aggregate's version is not ``expected_version``
        ├── VersionGap           an event does not have the next version of its aggregate
        ├── ConstraintViolated   a constraint of the domain's own table was violated
        └── CommandRefused       the aggregate's rules forbid the command; domains derive from it
"""

from collections.abc import Sequence
from typing import ClassVar
from uuid import UUID

from relaybox.errors import Detail, RelayboxError

__all__ = (
    "AggregateNotFound",
    "CommandError",
    "CommandRefused",
    "ConstraintViolated",
    "DuplicateCommand",
    "PayloadInvalid",
    "StaleVersion",
    "UnknownCommand",
    "VersionGap",
)


class CommandError(RelayboxError):
    """Base of the errors of commands; the command has not been recorded."""

    error_code: ClassVar[str] = "COMMAND_ERROR"


class AggregateNotFound(CommandError):
    """Raised when the aggregate does not exist or belongs to another principal."""

    error_code = "NOT_FOUND"

    def __init__(self, aggregate_id: UUID | str) -> None:
        super().__init__(
            f"aggregate {str(aggregate_id)[:60]} does not exist or belongs to another principal; check the id"
        )


class UnknownCommand(CommandError):
    """Raised when no handler is declared for a command type, or the caller may not use the handler."""

    error_code = "UNKNOWN_COMMAND"

    def __init__(self, command_type: str, known: Sequence[str]) -> None:
        remedy = f"send one of: {', '.join(sorted(known))}" if known else "no command may be sent here"
        super().__init__(f"unknown or not permitted command_type {command_type[:100]!r}; {remedy}")


class PayloadInvalid(CommandError):
    """Raised when the payload does not fit the command's model, or PostgreSQL cannot store the payload.

    ``details`` names the invalid fields, but not their values, which may be private.
    """

    error_code = "VALIDATION_ERROR"

    def __init__(self, command_type: str, details: Sequence[Detail]) -> None:
        self.details = tuple(details)
        problems = "; ".join(f"{one['field']}: {one['message']}" for one in self.details[:3])
        super().__init__(f"the payload of {command_type} is not valid: {problems}; correct these fields")


class DuplicateCommand(CommandError):
    """Raised when a command of the same type is pending for the aggregate (G03).

    ``duplicate_command_id`` is the id of the pending command.
    """

    error_code = "DUPLICATE_COMMAND"

    def __init__(self, duplicate_command_id: UUID) -> None:
        self.duplicate_command_id = duplicate_command_id
        super().__init__("Command already processing")


class StaleVersion(CommandError):
    """Raised when the caller's ``expected_version`` is not the aggregate's version."""

    error_code = "STALE_VERSION"

    def __init__(self, expected: int, actual: int) -> None:
        self.actual = actual
        super().__init__(
            f"expected_version is {expected}, but the aggregate's version is {actual}; "
            "read the aggregate again, then decide whether to repeat the command"
        )


class VersionGap(CommandError):
    """Raised when an event does not have the next version of its aggregate: a defect of the application."""

    error_code = "VERSION_GAP"

    def __init__(self, aggregate_type: str, aggregate_id: str, version: int) -> None:
        super().__init__(
            f"version {version} of {aggregate_type} {aggregate_id!r} does not follow the version before it; "
            "lock the aggregate, read its version, and number its events from the next version"
        )


class ConstraintViolated(CommandError):
    """Raised when a constraint of the domain's table rejects a decision, such as an id that exists already.

    ``constraint`` is the constraint's name, or None if PostgreSQL named none.
    """

    error_code = "CONSTRAINT_VIOLATED"

    def __init__(self, command_type: str, constraint: str | None) -> None:
        self.constraint = constraint
        what = "a constraint" if constraint is None else f"the constraint {constraint}"
        super().__init__(
            f"{command_type} was refused by {what}: the id or value exists already or is not allowed; "
            "read the state, then send a changed command"
        )


class CommandRefused(CommandError):
    """Raised by a decider when the aggregate's rules forbid the command now.

    A domain derives a class for each reason, with an ``error_code`` of its own.
    """

    error_code = "COMMAND_REFUSED"
    #: Fields of the payload that caused the refusal, if known.
    details: Sequence[Detail] = ()
