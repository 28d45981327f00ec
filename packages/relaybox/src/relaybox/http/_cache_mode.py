"""Cache mode: responses of endpoints without a unit of work are stored after the endpoint has returned."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from starlette.requests import Request

from relaybox.http._idempotent_request import IdempotentRequest, State, idempotent_request_of
from relaybox.http._request_key import Policy
from relaybox.http._tokens import Principal
from relaybox.idempotency import IdempotencyStore

__all__ = ("CacheMode", "claim_for_endpoint")

#: Keys of cache mode are apart from those of units of work, whose endpoints check more before a replay (G68).
_NAMESPACE: Final = "cache:"


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheMode:
    """The store of responses that no unit of work stores, and the principal that a request belongs to."""

    factory: Callable[[Request], Awaitable[IdempotencyStore]]
    principal: Callable[[Request], Awaitable[Principal | str | None]]

    async def claim_key(
        self, idempotent: IdempotentRequest, request: Request, policy: Policy | None = None
    ) -> None:
        """Claim the key of *request*, and hold its response until it is stored.

        Does nothing for a request without a key or without a principal (None or empty): such responses would
        be shared by all clients.

        Raises:
            KeyInvalid, KeyMissing, RequestInFlight, KeyReused, ResponseNotKept: See their docstrings.
            Replay: A response is stored under the key.
        """
        principal = await self.principal(request)
        if not principal:
            return
        with idempotent.deciding():
            claim = await idempotent.claim(request, principal, policy, namespace=_NAMESPACE)
            if claim is not None:
                await idempotent.hold_for_cache(await self.factory(request), claim)


async def claim_for_endpoint(request: Request, policy: Policy) -> None:
    """Claim the key for an endpoint marked ``@idempotent``, in cache mode unless it has a unit of work.

    Raises:
        RuntimeError: No cache mode is configured, or *policy* is ``secret``: cache mode may have stored the
            digest of the body before the endpoint was known.
        KeyInvalid, KeyMissing, RequestInFlight, KeyReused, ResponseNotKept: See their docstrings.
        Replay: A response is stored under the key.
    """
    idempotent = idempotent_request_of(request)
    if idempotent.state is State.HELD_FOR_UNIT:
        return
    if policy.secret:
        raise RuntimeError(f"{request.url.path} is marked secret, for which it needs a unit of work")
    if idempotent.state is State.HELD_FOR_CACHE:
        # The middleware claimed the key before the endpoint was known.
        idempotent.set_ttl(policy.ttl)
    elif idempotent.cache_mode is None:
        raise RuntimeError(
            f"{request.url.path} is @idempotent without a unit of work: give IdempotencyMiddleware "
            "idempotency_service_factory= and principal=, or depend on a unit of work"
        )
    else:
        await idempotent.cache_mode.claim_key(idempotent, request, policy)
