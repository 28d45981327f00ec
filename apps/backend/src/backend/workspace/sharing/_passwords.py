"""Hash and check the passwords of links with scrypt (RFC 7914)."""

import asyncio
import hashlib
import hmac
import os
import unicodedata
from base64 import b64decode, b64encode
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, TypeVar

from backend.workspace.errors import TooManyPasswords
from backend.workspace.http import ConcurrencyLimit

__all__ = (
    "COST",
    "HASHES_MAX",
    "HASHES_PER_HOLDER_MAX",
    "Cost",
    "PasswordHasher",
    "hash_password",
    "is_password",
)

Result = TypeVar("Result")

HASHES_MAX: Final = 128
"""Maximum number of passwords that a process hashes or that wait for it; the last of them waits 16 s."""
HASHES_PER_HOLDER_MAX: Final = 64
"""Maximum number of these passwords for one link, which a whole class may open at once, or for one user."""
_THREADS_MAX: Final = 2

_SALT_BYTES: Final = 16
_HASH_BYTES: Final = 32
_R: Final = 8
#: Limit for the memory of scrypt, which needs a little more than 128 N r bytes.
_MEMORY_BYTES_MAX: Final = 2**28


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """The cost of one hash: memory of ``2 ** log_n`` KiB, processed *p* times."""

    log_n: int
    p: int


#: The cost of new hashes: 16 MiB and a quarter of a second (OWASP, Password Storage Cheat Sheet). Each stored
#: hash contains its cost, so this value can be changed.
COST: Final = Cost(log_n=14, p=5)


def hash_password(password: str, cost: Cost = COST) -> str:
    """Return the text to store for *password*: cost, random salt and hash."""
    salt = os.urandom(_SALT_BYTES)
    digest = _scrypt(password, salt, cost)
    return f"scrypt${cost.log_n}${cost.p}${b64encode(salt).decode()}${b64encode(digest).decode()}"


def is_password(password: str, stored_hash: str) -> bool:
    """Return whether *stored_hash* is a hash of *password*; compares in constant time."""
    _, log_n, p, salt, digest = stored_hash.split("$")
    tried = _scrypt(password, b64decode(salt), Cost(log_n=int(log_n), p=int(p)))
    return hmac.compare_digest(tried, b64decode(digest))


class PasswordHasher:
    """Hashes passwords for the requests of one process, on two threads that only this class uses.

    On asyncio's threads, other work would wait: a hash takes a quarter of a second.
    """

    def __init__(self) -> None:
        #: Slots for passwords that are hashed or wait for a thread. The caller reserves a slot before it
        #: counts an attempt with a password, so that an attempt without a slot does not count.
        self.limit = ConcurrencyLimit(
            total_max=HASHES_MAX, per_holder_max=HASHES_PER_HOLDER_MAX, error=TooManyPasswords
        )
        self._threads: ThreadPoolExecutor | None = None

    @asynccontextmanager
    async def lifespan(self, _app: object) -> AsyncGenerator[None]:
        """Stop the threads when the application ends."""
        try:
            yield
        finally:
            threads, self._threads = self._threads, None
            if threads is not None:
                await asyncio.to_thread(threads.shutdown, cancel_futures=True)

    async def hash(self, password: str) -> str:
        """Return the hash of *password* to store."""
        return await self._run(hash_password, password)

    async def is_password(self, password: str, stored_hash: str) -> bool:
        """Return whether *stored_hash* is a hash of *password*."""
        return await self._run(is_password, password, stored_hash)

    async def _run(self, work: Callable[..., Result], *args: str) -> Result:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(max_workers=_THREADS_MAX, thread_name_prefix="passwords")
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *args)


def _scrypt(password: str, salt: bytes, cost: Cost) -> bytes:
    # Keyboards compose letters differently; NFKC makes the texts equal (NIST SP 800-63B, section 5.1.1.2).
    secret = unicodedata.normalize("NFKC", password).encode()
    return hashlib.scrypt(
        secret, salt=salt, n=2**cost.log_n, r=_R, p=cost.p, maxmem=_MEMORY_BYTES_MAX, dklen=_HASH_BYTES
    )
