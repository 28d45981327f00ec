"""What can go wrong with Redis, in our words."""

import re
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

from redis.exceptions import (
    ClusterError,
    ConnectionError,  # noqa: A004 - Redis' own, of refused links, passwords, and a server that is loading
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
#: What a server says that cannot do its work now; what a script meets has the word amid a sentence.
_WORDS: Final = re.compile(
    r"\b(BUSY|CLUSTERDOWN|LOADING|MASTERDOWN|MISCONF|NOPERM|NOREPLICAS|OOM|READONLY|TRYAGAIN)\b"
)


@contextmanager
def map_redis_errors() -> Generator[None]:
    """Turn Redis' trouble into :class:`StoreUnavailable`; what is a mistake of ours passes unchanged."""
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
        raise StoreUnavailable(f"Redis cannot do its work ({reason}); check the server") from error
