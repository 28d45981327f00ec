"""Store responses of endpoints without a unit of work after the endpoint has returned (cache mode)."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from starlette.requests import Request

from relaybox.http._idempotent_request import IdempotentRequest, State, idempotent_request_of
from relaybox.http._request_key import Policy
from relaybox.http._tokens import Principal
from relaybox.idempotency import IdempotencyStore

__all__ = ("CacheMode", "claim_for_endpoint")

#: Prefix of a claim's scope in cache mode. With this prefix, cache mode does not find responses that a unit
#: of work has stored: cache mode would replay them without a check of the sender's rights (G68).
_NAMESPACE: Final = "cache:"


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheMode:
    """Configuration of cache mode, which stores the response after the endpoint has returned."""

    #: Returns the store for the response to a request.
    factory: Callable[[Request], Awaitable[IdempotencyStore]]
    #: Returns the sender of a request; None if unknown.
    principal: Callable[[Request], Awaitable[Principal | str | None]]

    async def claim_key(
        self, idempotent: IdempotentRequest, request: Request, policy: Policy | None = None
    ) -> None:
        """Claim the key of *request*, and hold back the response until the response is stored.

        Does nothing for a request without a key. Does nothing for a request without a principal (None or
        empty) either, because such clients would share one scope and get each other's responses.

        Args:
            idempotent: State of the request.
            request: The request.
            policy: Policy of the endpoint; None for the default policy, while the endpoint is not yet known.

        Raises:
            KeyInvalid, KeyMissing, RequestInFlight, KeyReused, ResponseNotKept: See
                :mod:`relaybox.idempotency`.
            Replay: A response is stored under the key.
            DatabaseUnavailable, StoreUnavailable: The store does not respond.
        """
        principal = await self.principal(request)
        if not principal:
            return
        with idempotent.deciding():
            claim = await idempotent.claim(request, principal, policy, namespace=_NAMESPACE)
            if claim is not None:
                await idempotent.hold_for_cache(await self.factory(request), claim)


async def claim_for_endpoint(request: Request, policy: Policy) -> None:
    """Claim the key in cache mode for an endpoint marked ``@idempotent``.

    Does nothing if the endpoint has a unit of work, which has claimed the key. If the middleware has claimed
    the key before the endpoint was known, only the time for which the response is stored is set.

    Raises:
        RuntimeError: The endpoint has no unit of work, and cache mode is not configured or *policy* is
            ``secret``. Cache mode cannot serve ``secret``: the middleware claims a key before the endpoint is
            known, and the claim contains a digest of the body.
        KeyInvalid, KeyMissing, RequestInFlight, KeyReused, ResponseNotKept: See :mod:`relaybox.idempotency`.
        Replay: A response is stored under the key.
    """
    idempotent = idempotent_request_of(request)
    if idempotent.state is State.HELD_FOR_UNIT:
        return
    if policy.secret:
        raise RuntimeError(
            f"{request.url.path} is @idempotent(secret=True) without a unit of work; depend on a unit of work"
        )
    if idempotent.state is State.HELD_FOR_CACHE:
        # The middleware claimed the key before the endpoint was known.
        idempotent.set_ttl(policy.ttl)
    elif idempotent.cache_mode is None:
        raise RuntimeError(
            f"{request.url.path} is @idempotent without a unit of work; depend on a unit of work, or add an "
            "IdempotencyMiddleware with idempotency_service_factory= and principal="
        )
    else:
        await idempotent.cache_mode.claim_key(idempotent, request, policy)
