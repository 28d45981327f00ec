"""Mark endpoints that use idempotency keys: ``@idempotent(required=True)``."""

import inspect
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any, Final, ParamSpec, TypeVar, get_type_hints, overload

from starlette.requests import Request
from starlette.responses import StreamingResponse

from relaybox.http._cache_mode import claim_for_endpoint
from relaybox.http._request_key import Policy
from relaybox.idempotency import Ttl, ttl_seconds
from relaybox.settings import IdempotencySettings

__all__ = ("idempotent", "policy_of")

A = ParamSpec("A")
R = TypeVar("R")
Endpoint = Callable[A, Awaitable[R]]
_POLICY: Final = "relaybox_policy"
_REQUEST: Final = "relaybox_request"


@overload
def idempotent(endpoint: Endpoint[A, R], /) -> Endpoint[A, R]: ...
@overload
def idempotent(
    *, required: bool = False, ttl: Ttl = None, auto: bool = False, secret: bool = False
) -> Callable[[Endpoint[A, R]], Endpoint[A, R]]: ...
def idempotent(
    endpoint: Any = None,
    /,
    *,
    required: bool = False,
    ttl: Ttl = None,
    auto: bool = False,
    secret: bool = False,
) -> Any:
    """Mark an endpoint that uses idempotency keys; write this decorator below that of the route.

    An endpoint without a unit of work is served in cache mode, see :class:`IdempotencyMiddleware`.

    Args:
        endpoint: The endpoint, if the decorator is used without arguments.
        required: Whether requests without a key are refused, with 400 ``IDEMPOTENCY_KEY_MISSING``.
        ttl: Time for which responses are stored: a timedelta or a number of seconds; None for
            ``IDEMPOTENCY_TTL_H``.
        auto: Whether a key is generated for a request without a key, from method, path, query, body and
            principal, so that equal requests within *ttl* are executed once.
        secret: Whether the body of the request or of the response contains a secret. Then neither these
            bodies nor digests of them are stored. A retry, with any body, gets 410 ``RESPONSE_NOT_KEPT`` with
            the ``Location`` of the first response; only a response with an empty body is replayed. The
            endpoint must have a unit of work.

    Raises:
        TypeError: The endpoint is not a coroutine function, or its return annotation is a
            StreamingResponse: a stream cannot be stored (G67).
        ValueError: *ttl* is not positive or over a year; or *secret* and *auto* are both set, so that a
            digest of the body would be stored as the key.
    """
    # Checked here, so that a wrong declaration fails the start and not the first request.
    ttl_seconds(ttl, IdempotencySettings.model_construct())
    if auto and secret:
        raise ValueError(
            "auto=True would generate the key from a body with a secret; use required=True instead"
        )
    policy = Policy(required=required, ttl=ttl, auto=auto, secret=secret)

    def mark(function: Any) -> Any:
        return _marked(function, policy)

    return mark if endpoint is None else mark(endpoint)


def policy_of(endpoint: object) -> Policy | None:
    """Return the policy that *endpoint* was marked with; None for an unmarked endpoint."""
    return getattr(endpoint, _POLICY, None)


def _marked(endpoint: Callable[..., Awaitable[Any]], policy: Policy) -> Any:
    name = getattr(endpoint, "__qualname__", repr(endpoint))
    if not inspect.iscoroutinefunction(endpoint):
        raise TypeError(
            f"{name} is not an 'async def' function without yield; declare it so, because the key is claimed "
            "asynchronously and a stream cannot be stored"
        )
    hints = _hints_of(endpoint)
    if inspect.isclass(hints.get("return")) and issubclass(hints["return"], StreamingResponse):
        raise TypeError(f"{name} returns a StreamingResponse, which cannot be stored; return a Response")
    signature = inspect.signature(endpoint)
    own = next((one for one in signature.parameters if _is_request(one, hints.get(one))), None)

    @wraps(endpoint)
    async def with_claim(*args: Any, **kwargs: Any) -> Any:
        request = _request_in(args, kwargs, own)
        await claim_for_endpoint(request, policy)
        return await endpoint(*args, **kwargs)

    parameters = [
        one.replace(annotation=hints.get(n, one.annotation)) for n, one in signature.parameters.items()
    ]
    if own is None:
        parameters.append(inspect.Parameter(_REQUEST, inspect.Parameter.KEYWORD_ONLY, annotation=Request))
    returned = hints.get("return", signature.return_annotation)
    vars(with_claim).update(
        {
            _POLICY: policy,
            "__signature__": signature.replace(parameters=parameters, return_annotation=returned),
        }
    )
    return with_claim


def _hints_of(endpoint: Callable[..., Any]) -> dict[str, Any]:
    try:
        return get_type_hints(endpoint, include_extras=True)
    except NameError:
        # An annotation names a local class or an import under TYPE_CHECKING. FastAPI resolves the annotations
        # that it needs.
        return {}


def _is_request(name: str, hint: object) -> bool:
    """Return whether FastAPI passes the request to the parameter *name* of an endpoint.

    *hint* is the annotation of the parameter; None if it has none.
    """
    return name == "request" if hint is None else inspect.isclass(hint) and issubclass(hint, Request)


def _request_in(args: tuple[Any, ...], kwargs: dict[str, Any], own: str | None) -> Request:
    if own is None:
        return kwargs.pop(_REQUEST)
    return kwargs[own] if own in kwargs else args[0]
