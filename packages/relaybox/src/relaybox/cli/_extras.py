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
        # Nothing is published: the name alone would be looked for in an index that does not have it.
        raise ExtraMissing(
            f"the module {error.name!r} is missing, which the extra {extra!r} installs; in a clone of "
            f"Relaybox, run: pip install ./packages/types './packages/relaybox[{extra}]'"
        ) from error
