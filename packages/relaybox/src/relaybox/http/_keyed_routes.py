"""Find the routes that accept idempotency keys, and check that an IdempotencyMiddleware handles them."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from starlette.applications import Starlette
from starlette.routing import BaseRoute, Mount

from relaybox.http._errors import KeysIgnored
from relaybox.http._idempotency_middleware import IdempotencyMiddleware
from relaybox.http._idempotent_decorator import policy_of
from relaybox.http._unit import is_unit
from relaybox.idempotency import ResponseNotKept

__all__ = ("check_keyed_routes", "documents_keys")

_KEPT: Final = ResponseNotKept.error_code


def check_keyed_routes(app: Starlette) -> None:
    """Check that an IdempotencyMiddleware handles each route of *app* that accepts idempotency keys.

    Routes of mounted applications are checked too. A route accepts keys if its endpoint is marked
    :func:`idempotent`, depends on a :func:`unit_of_work`, or documents ``RESPONSE_NOT_KEPT`` for status 410,
    as the routes of :func:`command_router` do.

    Raises:
        KeysIgnored: A route accepts keys, and neither its application nor an application that mounts it has
            an IdempotencyMiddleware.
    """
    ignored = list(_ignored(app))
    if ignored:
        raise KeysIgnored(ignored)


def documents_keys(responses: Mapping[Any, Any]) -> bool:
    """Return whether the documented *responses* of a route contain 410 ``RESPONSE_NOT_KEPT``.

    Routes that accept idempotency keys document this response.
    """
    gone: Mapping[str, Any] = responses.get(410) or responses.get("410") or {}
    return _KEPT in gone.get("description", "")


def _ignored(app: Starlette) -> Iterator[str]:
    """Yield the paths of routes of *app* that accept keys, and whose keys no middleware handles."""
    if any(one.cls is IdempotencyMiddleware for one in app.user_middleware):
        return
    yield from _ignored_among(app.routes)


def _ignored_among(routes: Iterable[BaseRoute]) -> Iterator[str]:
    for route in routes:
        if isinstance(route, Mount):
            mounted = route.app
            yield from _ignored(mounted) if isinstance(mounted, Starlette) else _ignored_among(route.routes)
            continue
        # Since about version 0.140 FastAPI keeps an included router as one route; before, it copied the
        # routes.
        included = getattr(route, "original_router", None)
        if included is not None:
            yield from _ignored_among(included.routes)
        elif _accepts_keys(route):
            yield getattr(route, "path", repr(route))


def _accepts_keys(route: BaseRoute) -> bool:
    marked = policy_of(getattr(route, "endpoint", None)) is not None
    return marked or documents_keys(getattr(route, "responses", {})) or _has_unit(route)


def _has_unit(route: BaseRoute) -> bool:
    waiting: list[Any] = [getattr(route, "dependant", None)]
    while waiting:
        dependant = waiting.pop()
        if dependant is None:
            continue
        if is_unit(dependant.call):
            return True
        waiting.extend(dependant.dependencies)
    return False
