"""Errors of operator actions.

The *marker* of a lane is the id of its last batch in Kafka.

::

    RelayboxError
    └── OperationError
        ├── SelectionEmpty   no rows are selected, or the action applies to none of them
        ├── LanesRefused     the number of lanes is not allowed
        └── MarkerRefused    the lane has no fault, or a fault with another marker
"""

from relaybox.errors import RelayboxError

__all__ = ("LanesRefused", "MarkerRefused", "OperationError", "SelectionEmpty")


class OperationError(RelayboxError):
    """Base class of the errors of operator actions; nothing was changed."""

    error_code = "OPERATION_ERROR"


class SelectionEmpty(OperationError):
    """Raised when no rows are selected or match; inspect the rows with ``relaybox outbox list``."""

    error_code = "SELECTION_EMPTY"


class LanesRefused(OperationError):
    """Raised for a number of lanes that doubling cannot reach, or that is lower than before or above 1024."""

    error_code = "LANES_REFUSED"


class MarkerRefused(OperationError):
    """Raised when a lane has no fault, or a fault with another marker: see ``relaybox relay status``."""

    error_code = "MARKER_REFUSED"
