"""Map errors of the Redis client to errors of this package."""

import re
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

from redis.exceptions import (
    ClusterError,
    ConnectionError,  # noqa: A004 - raised for refused connections, passwords, and a server that is loading
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    TimeoutError,  # noqa: A004
    TryAgainError,
)

from relaybox.idempotency._errors import StoreUnavailable

__all__ = ("map_redis_errors",)

_AWAY: Final = (ConnectionError, TimeoutError)
_UNWILLING: Final = (ClusterError, NoPermissionError, OutOfMemoryError, ReadOnlyError, TryAgainError)
#: Error codes of a server that cannot execute commands now; in a script's error the code is in a sentence.
_WORDS: Final = re.compile(
    r"\b(BUSY|CLUSTERDOWN|LOADING|MASTERDOWN|MISCONF|NOPERM|NOREPLICAS|OOM|READONLY|TRYAGAIN)\b"
)


@contextmanager
def map_redis_errors() -> Generator[None]:
    """Map failures of Redis to :class:`StoreUnavailable`; programming errors pass unchanged."""
    try:
        yield
    except _AWAY as error:
        raise StoreUnavailable(
            "Redis cannot be reached; check the address and password of its client, and the server"
        ) from error
    except RedisError as error:
        word = _WORDS.search(str(error))
        if word is None and not isinstance(error, _UNWILLING):
            raise
        reason = word[1] if word else type(error).__name__
        raise StoreUnavailable(f"Redis cannot execute commands ({reason}); check the server") from error
