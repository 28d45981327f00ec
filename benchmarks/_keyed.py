"""Send requests without an idempotency key, with new keys, and with keys that have a stored response."""

import itertools
import json
import random
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Literal
from uuid import uuid4

from _load import Address, closed_loop
from _orders import ORDERS
from _stage import token
from relaybox.db import load_queries

__all__ = ("CONNECTIONS", "SQL", "WAYS", "Subject", "Way", "fresh", "place_order", "wal_bytes")

SQL: Final = load_queries("statements", "idempotency.sql")
CONNECTIONS: Final = 32

#: Kinds of requests: without an idempotency key, with a new key, with a key that has a stored response.
Way = Literal["plain", "first", "replay"]
WAYS: Final[tuple[Way, ...]] = ("plain", "first", "replay")
#: Requests that are generated in advance, per second of a turn; a turn ends early if it has sent all of them.
_PER_S_MAX: Final = 8_000
#: Number of stored responses that are replayed.
_KNOWN: Final = 2_000
_LEARN_S: Final = 60.0


def place_order(seed: int = 0) -> Iterator[bytes]:
    """Yield HTTP requests that place random orders, without end."""
    draw = random.Random(seed)
    head = f"POST {ORDERS} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {token()}\r\n"
    head += "Content-Type: application/json\r\nContent-Length: "
    prepared: list[bytes] = []
    for _ in range(_KNOWN):
        order = {"item": f"lamp for a lighthouse, size {draw.randrange(900)}", "quantity": draw.randint(1, 9)}
        body = json.dumps(order)
        prepared.append(f"{head}{len(body)}\r\n\r\n{body}".encode())
    return itertools.cycle(prepared)


def fresh(requests: Iterator[bytes], count: int) -> list[bytes]:
    """Return *count* of *requests*, each with a new idempotency key."""
    return [_with_key(request, f"{uuid4()}".encode()) for request in itertools.islice(requests, count)]


def _with_key(request: bytes, key: bytes) -> bytes:
    line, rest = request.split(b"\r\n", 1)
    return b"%b\r\nIdempotency-Key: %b\r\n%b" % (line, key, rest)


@dataclass(kw_only=True, slots=True)
class Subject:
    """An endpoint that is measured, with its requests and the results of the rounds."""

    address: Address
    #: Returns requests without a key; the argument is the seed of their random order.
    requests: Callable[[int], Iterator[bytes]]
    per_s: dict[Way, list[float]] = field(default_factory=lambda: {way: [] for way in WAYS})
    wal_bytes: dict[Way, list[float]] = field(default_factory=lambda: {way: [] for way in WAYS})
    _known: list[bytes] = field(default_factory=list[bytes])

    async def learn(self) -> None:
        """Send requests with keys, whose stored responses are replayed later."""
        self._known = fresh(self.requests(-1), _KNOWN)
        sent = iter(self._known)
        load = await closed_loop(self.address, sent, connections=CONNECTIONS, seconds=_LEARN_S)
        load.require_success(str(self.address))
        assert load.answered == _KNOWN, "not every key was answered"

    async def measure(self, way: Way, number: int, seconds: float, connection: Any) -> None:
        """Send requests for *seconds*, and store their rate and WAL bytes under *way*.

        Args:
            way: The kind of requests: without a key, with new keys, or with keys that have a stored response.
            number: The number of the round; the results of a negative round, a warm-up, are not stored.
            seconds: The duration.
            connection: Used to read the WAL position.
        """
        requests = self._requests(way, number, seconds)
        before = await wal_bytes(connection)
        load = await closed_loop(self.address, requests, connections=CONNECTIONS, seconds=seconds)
        written = await wal_bytes(connection) - before
        load.require_success(str(self.address))
        if number >= 0:
            self.per_s[way].append(load.per_s)
            self.wal_bytes[way].append(written / load.answered)

    def median(self, way: Way) -> float:
        """Return the median over the rounds of responses per second."""
        return statistics.median(self.per_s[way])

    def ratio(self, way: Way) -> float:
        """Return the median over the rounds of the ratio to the turn without keys in the same round."""
        pairs = zip(self.per_s[way], self.per_s["plain"], strict=True)
        return statistics.median([one / plain for one, plain in pairs])

    def _requests(self, way: Way, number: int, seconds: float) -> Iterator[bytes]:
        if way == "replay":
            return itertools.cycle(self._known)
        plain = self.requests(number)
        return plain if way == "plain" else iter(fresh(plain, int(_PER_S_MAX * seconds)))


async def wal_bytes(connection: Any) -> float:
    """Return the WAL position of the server in bytes."""
    [row] = await connection.fetch(SQL["wal"])
    return row["bytes"]
