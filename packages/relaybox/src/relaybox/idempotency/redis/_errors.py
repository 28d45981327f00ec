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
#: Matches the error codes of a Redis server that cannot execute commands now. The message of a Lua script's
#: error contains the code.
_WORDS: Final = re.compile(
    r"\b(BUSY|CLUSTERDOWN|LOADING|MASTERDOWN|MISCONF|NOPERM|NOREPLICAS|OOM|READONLY|TRYAGAIN)\b"
)


@contextmanager
def map_redis_errors() -> Generator[None]:
    """Raise :class:`StoreUnavailable` if Redis fails in the ``with`` block; pass on other errors.

    Raises:
        StoreUnavailable: Redis is unreachable or cannot execute commands now.
    """
    try:
        yield
    except _AWAY as error:
        raise StoreUnavailable(
            "Redis cannot be reached; check that the server runs, and the client's address and password"
        ) from error
    except RedisError as error:
        word = _WORDS.search(str(error))
        if word is None and not isinstance(error, _UNWILLING):
            raise
        reason = word[1] if word else type(error).__name__
        raise StoreUnavailable(
            f"Redis cannot execute commands ({reason}); see the log of the Redis server"
        ) from error
