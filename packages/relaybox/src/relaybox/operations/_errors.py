"""Why an operator's wish was not carried out.

::

    RelayboxError
    └── OperationError
        ├── SelectionEmpty   no row was named, or none of that name is there
        ├── LanesRefused     this number of lanes cannot be had
        └── MarkerRefused    that marker is not what the lane stopped at
"""

from relaybox.errors import RelayboxError

__all__ = ("LanesRefused", "MarkerRefused", "OperationError", "SelectionEmpty")


class OperationError(RelayboxError):
    """Base of the errors of this package; nothing was changed."""

    error_code = "OPERATION_ERROR"


class SelectionEmpty(OperationError):
    """Raised when an act names no rows, or rows that are not there; look with ``relaybox outbox list``."""

    error_code = "SELECTION_EMPTY"


class LanesRefused(OperationError):
    """Raised when the lanes cannot become that many: they double, up to 1024, and never shrink."""

    error_code = "LANES_REFUSED"


class MarkerRefused(OperationError):
    """Raised when a lane has no fault, or one that names another marker; see ``relaybox relay status``."""

    error_code = "MARKER_REFUSED"
