"""Passwords of links: kept as scrypt makes them (RFC 7914), each with its salt and its price."""

import asyncio
import hashlib
import hmac
import os
import unicodedata
from base64 import b64decode, b64encode
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

__all__ = ("COST", "Cost", "hash_password", "is_password")

_SALT_BYTES: Final = 16
_HASH_BYTES: Final = 32
_R: Final = 8
#: scrypt takes 128 N r bytes, and a little more.
_MEMORY_BYTES_MAX: Final = 2**28


#: Not asyncio's own threads: a hash takes a quarter of a second, and other work would wait for it.
_THREADS: Final = ThreadPoolExecutor(max_workers=2, thread_name_prefix="passwords")


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What one try costs: ``2 ** log_n`` KiB of memory, *p* times over."""

    log_n: int
    p: int


#: 16 MiB and a quarter of a second (OWASP, Password Storage Cheat Sheet). Each hash keeps its own.
COST: Final = Cost(log_n=14, p=5)


async def hash_password(password: str, cost: Cost = COST) -> str:
    """What to keep of *password*; computed in a thread."""
    salt = os.urandom(_SALT_BYTES)
    digest = await asyncio.get_running_loop().run_in_executor(_THREADS, _scrypt, password, salt, cost)
    return f"scrypt${cost.log_n}${cost.p}${b64encode(salt).decode()}${b64encode(digest).decode()}"


async def is_password(password: str, kept: str) -> bool:
    """Whether *kept* was made of *password*; computed in a thread, and no faster for a near miss."""
    _, log_n, p, salt, digest = kept.split("$")
    cost = Cost(log_n=int(log_n), p=int(p))
    loop = asyncio.get_running_loop()
    tried = await loop.run_in_executor(_THREADS, _scrypt, password, b64decode(salt), cost)
    return hmac.compare_digest(tried, b64decode(digest))


def _scrypt(password: str, salt: bytes, cost: Cost) -> bytes:
    # However a keyboard composes its letters (NIST SP 800-63B, section 5.1.1.2).
    secret = unicodedata.normalize("NFKC", password).encode()
    return hashlib.scrypt(
        secret, salt=salt, n=2**cost.log_n, r=_R, p=cost.p, maxmem=_MEMORY_BYTES_MAX, dklen=_HASH_BYTES
    )
