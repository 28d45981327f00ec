"""Parts of the library that are extras."""

from collections.abc import Generator
from contextlib import contextmanager

from relaybox.errors import RelayboxError

__all__ = ("ExtraMissing", "needs_extra")


class ExtraMissing(RelayboxError):
    """Raised when a command needs a part of the library that is not installed; install the extra."""

    error_code = "EXTRA_MISSING"


@contextmanager
def needs_extra(extra: str) -> Generator[None]:
    """Say which *extra* brings a module that the block imports in vain.

    Raises:
        ExtraMissing: a module is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ExtraMissing(f"this needs {error.name}; run: pip install 'relaybox[{extra}]'") from error
