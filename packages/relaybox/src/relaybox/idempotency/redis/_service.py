"""Store responses in Redis, after the effect of the request was committed."""

import math
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from typing import Any, Final

import structlog
from redis.asyncio import Redis

from relaybox.idempotency._errors import RequestInFlight, StoreUnavailable
from relaybox.idempotency._keys import generate_key, generate_key_from_request, stored_key
from relaybox.idempotency._response import Claim, ResponseParts, StoredResponse, split_body, stored_result
from relaybox.idempotency._service import Ttl, ttl_seconds
from relaybox.idempotency.redis._errors import map_redis_errors
from relaybox.settings import IdempotencySettings, load_settings

__all__ = ("RedisIdempotencyService",)

_log: Final = structlog.get_logger(__name__)
_SCRIPTS: Final = {
    name: (files(__package__ or "relaybox.idempotency.redis") / f"{name}.lua").read_text(encoding="utf-8")
    for name in ("lock", "find", "keep", "release")
}
_TOKEN_BYTES: Final = 16
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class RedisIdempotencyService:
    """Store responses in Redis: the same methods as :class:`IdempotencyService`, with weaker guarantees.

    A response is not stored in the transaction of the effect: if the process dies between effect and
    response, a retry executes the request again. The lock is a lease: a process that is frozen for longer
    than *lease_s* may continue while another process executes the request. A failover of Redis may lose
    responses and locks.
    """

    def __init__(
        self,
        client: "Redis",
        *,
        settings: IdempotencySettings | None = None,
        lease_s: float = 60.0,
        prefix: str = "relaybox:idempotency",
    ) -> None:
        """Create the store for one request.

        Args:
            client: Client with ``decode_responses=False``; the caller closes it.
            settings: None reads ``IDEMPOTENCY_*`` from the environment.
            lease_s: Seconds after which a lock ends, although its request may still run. Must be longer than
                any request takes. If the process dies, the key stays locked for this time.
            prefix: Prefix of all keys in Redis.

        Raises:
            ValueError: *client* decodes responses, but bodies are bytes; or *lease_s* is not positive.
        """
        if client.get_encoder().decode_responses:
            raise ValueError("the Redis client decodes responses; create it with decode_responses=False")
        if not 0 < lease_s < math.inf:
            raise ValueError(f"lease_s must be a number of seconds above 0, not {lease_s}")
        self._client = client
        self._settings = settings or load_settings(IdempotencySettings)
        self._lease_ms = math.ceil(lease_s * 1_000)
        self._prefix = prefix
        self._token = secrets.token_hex(_TOKEN_BYTES)
        #: Redis keys of the locks that this object acquired and did not release; their leases may have ended.
        self._locks = set[str]()

    generate_key = staticmethod(generate_key)
    generate_key_from_request = staticmethod(generate_key_from_request)

    async def try_lock(self, key: str, *, scope: str = "") -> bool:
        """Lock *key* for at most ``lease_s`` seconds; return False at once if another request has the lock.

        Raises:
            StoreUnavailable: Redis is unreachable.
        """
        lock = self._names(key, scope)[1]
        # Added before the call, because Redis may set the lock although its reply is lost.
        self._locks.add(lock)
        if await self._run("lock", [lock], self._token, self._lease_ms):
            return True
        self._locks.discard(lock)
        return False

    async def claim(self, key: str, *, scope: str = "") -> StoredResponse | None:
        """Lock *key* as :meth:`try_lock` does, and return its stored response; None if there is none.

        Raises:
            RequestInFlight: Another request holds the lock.
            StoreUnavailable: Redis is unreachable.
        """
        if not await self.try_lock(key, scope=scope):
            raise RequestInFlight
        return await self.find(key, scope=scope)

    async def find(self, key: str, *, scope: str = "") -> StoredResponse | None:
        """Return the response stored under *key*, with its age by the clock of Redis; None if there is none.

        Raises:
            StoreUnavailable: Redis is unreachable.
        """
        found = await self._run("find", [self._names(key, scope)[0]])
        if found is None:
            return None
        result, body, *moments = found
        created_us, expires_us, now_s, now_us = map(int, moments)
        row = {
            "result": result,
            "created_at": _EPOCH + timedelta(microseconds=created_us),
            "expires_at": _EPOCH + timedelta(microseconds=expires_us),
            "age_s": (now_s * 1_000_000 + now_us - created_us) / 1_000_000,
        }
        return StoredResponse.from_row(row, body)

    async def check_idempotency_key(self, key: str, *, scope: str = "") -> dict[str, Any] | None:
        """Return the result stored under *key*; None if there is none, or it has expired.

        The member ``body`` of the result is bytes if it was stored as bytes.

        Raises:
            StoreUnavailable: Redis is unreachable.
        """
        stored = await self.find(key, scope=scope)
        return None if stored is None else stored.document()

    async def cache_idempotency_result(
        self, key: str, result: Mapping[str, Any], ttl: Ttl = None, *, scope: str = ""
    ) -> bool:
        """Store *result* for *ttl*; return False if a result that has not expired is stored under *key*.

        Other requests see the result immediately, before :meth:`commit`. The method also returns False if the
        lock of this object has ended with its lease and another request has the lock now.

        Args:
            key: The client's key or a generated key.
            result: An object of JSON types; its member ``body`` may be bytes.
            ttl: Time for which the result is stored; None for ``IDEMPOTENCY_TTL_H``.
            scope: Principal of the key, see :func:`scope_of`.

        Raises:
            ValueError: *ttl* is not positive or over a year, or *result* cannot be stored
                (:func:`split_body`).
            StoreUnavailable: Redis is unreachable; the result may have been stored or not.
        """
        document, body = split_body(result)
        ttl_us = math.ceil(ttl_seconds(ttl, self._settings) * 1_000_000)
        response, lock = self._names(key, scope)
        token = self._token if lock in self._locks else ""
        values = [secrets.token_hex(_TOKEN_BYTES), token, document, ttl_us, *([] if body is None else [body])]
        return bool(await self._run("keep", [response, lock], *values))

    async def keep(self, claim: Claim, response: ResponseParts) -> None:
        """Store *response* under *claim*.

        Raises:
            RequestInFlight: Another request has stored a response under the key, or has the lock because the
                lease of this object's lock has ended.
            StoreUnavailable: Redis is unreachable.
        """
        result = stored_result(response, claim)
        if not await self.cache_idempotency_result(claim.key, result, claim.ttl_s, scope=claim.scope):
            raise RequestInFlight

    async def invalidate_key(self, key: str, *, scope: str = "") -> bool:
        """Delete *key* and its result; return False if nothing was stored under *key*.

        Raises:
            StoreUnavailable: Redis is unreachable.
        """
        with map_redis_errors():
            return bool(await self._client.delete(self._names(key, scope)[0]))

    async def cleanup_expired(self) -> int:
        """Return 0: Redis deletes expired keys itself."""
        return 0

    async def commit(self) -> None:
        """Release the lock; a stored result is visible already.

        Raises:
            StoreUnavailable: Redis is unreachable; the lock ends with its lease.
        """
        for lock in tuple(self._locks):
            await self._run("release", [lock], self._token)
            self._locks.discard(lock)

    async def release(self) -> None:
        """Release the lock; a stored result stays. If Redis is unreachable, the lock ends with its lease."""
        try:
            await self.commit()
        except StoreUnavailable as error:
            _log.warning("lock not released; it ends with its lease", reason=str(error))

    async def _run(self, script: str, names: list[str], *values: str | bytes | int) -> Any:
        with map_redis_errors():
            return await self._client.register_script(_SCRIPTS[script])(names, values)

    def _names(self, key: str, scope: str) -> tuple[str, str]:
        """Return the Redis keys of response and lock; their hash tag puts both in one slot of a cluster."""
        response = f"{self._prefix}:{{{stored_key(scope, key, self._settings.secret)}}}"
        return response, f"{response}:lock"
