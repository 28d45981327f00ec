"""Store responses in PostgreSQL, in the transaction of the caller."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final, Protocol

from sqlalchemy.ext.asyncio import AsyncSession

from relaybox.db import (
    DatabaseUnavailable,
    Executor,
    executor_of,
    load_queries,
    map_database_errors,
)
from relaybox.idempotency._errors import RequestInFlight
from relaybox.idempotency._keys import generate_key, generate_key_from_request, lock_number, stored_key
from relaybox.idempotency._response import (
    Claim,
    ResponseParts,
    StoredResponse,
    has_separate_body,
    split_body,
    stored_result,
)
from relaybox.settings import IdempotencySettings, load_settings

__all__ = (
    "QUERIES",
    "STORE_PARTS",
    "ClaimStore",
    "IdempotencyService",
    "IdempotencyStore",
    "Ttl",
    "delete_expired",
    "load_stored_response",
    "ttl_seconds",
)

QUERIES: Final = load_queries(__package__ or "relaybox.idempotency", "idempotency.sql")
#: The parts of an SQL statement that store responses; the statement that writes commands includes them too.
STORE_PARTS: Final = {name: QUERIES[name] for name in ("claim_keys", "store_bodies")}
_KEEP: Final = QUERIES.including("keep", **STORE_PARTS)
_EXPIRE_ROWS: Final = 5_000
#: One year in seconds, as for IDEMPOTENCY_TTL_H. Without a limit, the time of expiry could be too late for
#: PostgreSQL to store.
_TTL_S_MAX: Final = 8_760 * 3_600
#: Time for which a response is stored: a timedelta or a number of seconds; None for IDEMPOTENCY_TTL_H.
Ttl = timedelta | float | None


class ClaimStore(Protocol):
    """The interface to claim a key, store a response under the key, and commit or release the claim.

    Units of work and endpoints in cache mode use this interface. Commands do not: the statement that writes a
    command also claims its key. One object serves one request. *key* is the client's key or a generated key.
    *scope* identifies the principal of the key (:func:`scope_of`).
    """

    async def claim(self, key: str, *, scope: str = "") -> StoredResponse | None:
        """Lock *key*, and return its stored response; None if there is none.

        Raises:
            RequestInFlight: Another request holds the lock.
        """
        ...

    async def keep(self, claim: Claim, response: ResponseParts) -> None:
        """Store *response* under the key of *claim*.

        Raises:
            RequestInFlight: Another request has stored a response under the key.
        """
        ...

    async def commit(self) -> None:
        """Make the stored response durable, and release the lock."""
        ...

    async def release(self) -> None:
        """Release the lock; with PostgreSQL, also roll back an open transaction and free its connection."""
        ...


class IdempotencyStore(ClaimStore, Protocol):
    """The interface of the stores of responses, which are PostgreSQL and Redis."""

    async def try_lock(self, key: str, *, scope: str = "") -> bool:
        """Lock *key* until ``commit`` or ``release``; return False if another request has the lock."""
        ...

    async def find(self, key: str, *, scope: str = "") -> StoredResponse | None:
        """Return the response stored under *key*; None if there is none, or it has expired."""
        ...

    async def check_idempotency_key(self, key: str, *, scope: str = "") -> dict[str, Any] | None:
        """Return the result stored under *key*; None if there is none, or it has expired.

        The member ``body`` of the result is bytes if it was stored as bytes.
        """
        ...

    async def cache_idempotency_result(
        self, key: str, result: Mapping[str, Any], ttl: Ttl = None, *, scope: str = ""
    ) -> bool:
        """Store *result* for *ttl*; return False if a result that has not expired is stored under *key*.

        *result* must consist of JSON types; its member ``body`` may be bytes.
        """
        ...

    async def invalidate_key(self, key: str, *, scope: str = "") -> bool:
        """Delete *key* and its result; return False if nothing was stored under *key*."""
        ...

    async def cleanup_expired(self) -> int:
        """Delete expired keys; return their number."""
        ...


class IdempotencyService:
    """Store responses in the transaction of *session*, so that effect and response commit together (G63).

    The isolation level must be READ COMMITTED, PostgreSQL's default: under REPEATABLE READ a transaction
    would not see a response that another transaction committed before the lock was acquired.
    """

    def __init__(self, session: AsyncSession, *, settings: IdempotencySettings | None = None) -> None:
        """Use *session*; *settings* None reads ``IDEMPOTENCY_*`` from the environment."""
        self._session = session
        self._db = executor_of(session)
        self._settings = settings or load_settings(IdempotencySettings)

    generate_key = staticmethod(generate_key)
    generate_key_from_request = staticmethod(generate_key_from_request)

    async def try_lock(self, key: str, *, scope: str = "") -> bool:
        """Lock *key* until the transaction ends; return False at once if another transaction has the lock.

        The lock is an advisory lock of the transaction, so PostgreSQL releases it when the process dies.

        Raises:
            DatabaseUnavailable: PostgreSQL is unreachable.
        """
        with map_database_errors():
            [row] = await self._db.fetch(QUERIES["lock"], lock_number(self._row_key(key, scope)))
        return row["mine"]

    async def claim(self, key: str, *, scope: str = "") -> StoredResponse | None:
        """Lock *key* as :meth:`try_lock` does, and return its stored response; None if there is none.

        Takes one round trip, or two if the body of the response is in a row of its own.

        Raises:
            RequestInFlight: Another request holds the lock.
            DatabaseUnavailable: PostgreSQL is unreachable.
        """
        row_key = self._row_key(key, scope)
        with map_database_errors():
            [row] = await self._db.fetch(QUERIES["claim"], lock_number(row_key), row_key)
            if not row["mine"]:
                raise RequestInFlight
            return None if row["result"] is None else await load_stored_response(self._db, row_key, row)

    async def find(self, key: str, *, scope: str = "") -> StoredResponse | None:
        """Return the response stored under *key*; None if there is none, or it has expired.

        Raises:
            DatabaseUnavailable: PostgreSQL is unreachable.
        """
        row_key = self._row_key(key, scope)
        with map_database_errors():
            rows = await self._db.fetch(QUERIES["find"], row_key)
            return await load_stored_response(self._db, row_key, rows[0]) if rows else None

    async def check_idempotency_key(self, key: str, *, scope: str = "") -> dict[str, Any] | None:
        """Return the result stored under *key*; None if there is none, or it has expired.

        The member ``body`` of the result is bytes if it was stored as bytes.

        Raises:
            DatabaseUnavailable: PostgreSQL is unreachable.
        """
        stored = await self.find(key, scope=scope)
        return None if stored is None else stored.document()

    async def cache_idempotency_result(
        self, key: str, result: Mapping[str, Any], ttl: Ttl = None, *, scope: str = ""
    ) -> bool:
        """Store *result* for *ttl*; return False if a result that has not expired is stored under *key*.

        Args:
            key: The client's key or a generated key.
            result: An object of JSON types; its member ``body`` may be bytes.
            ttl: Time for which the result is stored; None for ``IDEMPOTENCY_TTL_H``.
            scope: Principal of the key, see :func:`scope_of`.

        Raises:
            ValueError: *ttl* is not positive or over a year, or *result* cannot be stored
                (:func:`split_body`).
            DatabaseUnavailable: PostgreSQL is unreachable.
            DatabaseBusy: Another open transaction is storing a result under this key.
        """
        document, body = split_body(result)
        ttl_s = ttl_seconds(ttl, self._settings)
        with map_database_errors():
            rows = await self._db.fetch(_KEEP, self._row_key(key, scope), document, body, ttl_s)
        return bool(rows)

    async def keep(self, claim: Claim, response: ResponseParts) -> None:
        """Store *response* under *claim*.

        Raises:
            RequestInFlight: Another request has stored a response under the key.
            DatabaseUnavailable, DatabaseBusy: As :meth:`cache_idempotency_result`.
        """
        result = stored_result(response, claim)
        if not await self.cache_idempotency_result(claim.key, result, claim.ttl_s, scope=claim.scope):
            raise RequestInFlight

    async def invalidate_key(self, key: str, *, scope: str = "") -> bool:
        """Delete *key* and its result; return False if nothing was stored under *key*.

        Raises:
            DatabaseUnavailable: PostgreSQL is unreachable.
        """
        with map_database_errors():
            return bool(await self._db.fetch(QUERIES["invalidate"], self._row_key(key, scope)))

    async def cleanup_expired(self) -> int:
        """Delete expired claims (rows of ``idempotency_cache``) in this transaction; return their number.

        For many claims use ``relaybox sweep``, which commits between its steps, and also truncates tables of
        expired bodies.

        Raises:
            DatabaseUnavailable: PostgreSQL is unreachable.
        """
        removed = 0
        with map_database_errors():
            while True:
                [row] = await self._db.fetch(QUERIES["expire"], _EXPIRE_ROWS)
                removed += row["removed"]
                if row["removed"] < _EXPIRE_ROWS:
                    return removed

    async def commit(self) -> None:
        """Commit the session.

        Raises:
            DatabaseUnavailable: PostgreSQL is unreachable; the session may have been committed or not. A
                retry with the same key is replayed if the session was committed, and executed otherwise.
        """
        with map_database_errors():
            await self._session.commit()

    async def release(self) -> None:
        """Roll back the session if it was not committed, and return its connection to the pool."""
        # PostgreSQL rolls back the transaction of a broken connection itself.
        with suppress(DatabaseUnavailable), map_database_errors():
            await self._session.close()

    def _row_key(self, key: str, scope: str) -> str:
        return stored_key(scope, key, self._settings.secret)


async def load_stored_response(db: Executor, key: str, row: Mapping[str, Any]) -> StoredResponse:
    """Return the response in *row*; read its body from the database if the body is in a row of its own.

    Args:
        db: A connection or session on the database of *row*.
        key: The stored key of the response, see :func:`stored_key`.
        row: A row with the columns that :meth:`StoredResponse.from_row` reads.
    """
    if not has_separate_body(row["result"]):
        return StoredResponse.from_row(row)
    bodies = await db.fetch(QUERIES["body"], key, row["expires_at"])
    return StoredResponse.from_row(row, bodies[0]["body"] if bodies else None)


async def delete_expired(db: Executor, keys: Sequence[str]) -> None:
    """Delete the claims of *keys* (stored keys) that have expired, so that new claims can be inserted."""
    await db.fetch(QUERIES["delete_expired"], keys)


def ttl_seconds(ttl: Ttl, settings: IdempotencySettings) -> float:
    """Return *ttl* in seconds; for None the seconds of ``IDEMPOTENCY_TTL_H`` in *settings*.

    Raises:
        ValueError: *ttl* is not positive, or over a year.
    """
    seconds = settings.ttl_h * 3_600 if ttl is None else _seconds(ttl)
    if not 0 < seconds <= _TTL_S_MAX:
        raise ValueError(f"ttl must be more than 0 and at most {_TTL_S_MAX} seconds (a year), not {seconds}")
    return seconds


def _seconds(ttl: timedelta | float) -> float:
    return ttl.total_seconds() if isinstance(ttl, timedelta) else float(ttl)
