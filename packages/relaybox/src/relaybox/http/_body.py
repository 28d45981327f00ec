"""Reading a request's body: bounded, declared, JSON that PostgreSQL can hold.

Nothing is read before a route asks for it, so that a missing token is answered first, whatever the
body is (contract, section 2, precedence).
"""

import math
import re
from collections.abc import Iterable
from typing import Any, Final, TypeVar, cast

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from relaybox.errors import RelayboxError
from relaybox.http._errors import (
    BodyTooLarge,
    JsonNotStorable,
    JsonTooDeep,
    MalformedJson,
    UnsupportedMediaType,
    ValidationFailed,
    validation_details,
)

__all__ = (
    "BODY_BYTES_MAX",
    "BODY_ERRORS",
    "BodyLimitMiddleware",
    "json_body",
    "parse_json",
    "read_bytes",
    "read_json",
    "read_model",
)

Model = TypeVar("Model", bound=BaseModel)

#: Bytes of a body that a route takes unless it says otherwise (contract, section 2).
BODY_BYTES_MAX: Final = 1024 * 1024
#: Levels of nesting; a scalar has none.
DEPTH_MAX: Final = 64
#: What :func:`read_model` may raise, for ``error_responses``.
BODY_ERRORS: Final[tuple[type[RelayboxError], ...]] = (
    MalformedJson,
    BodyTooLarge,
    UnsupportedMediaType,
    JsonTooDeep,
    JsonNotStorable,
    ValidationFailed,
)

#: Where a route that takes more than its application's limit tells the middleware so.
_LIMIT_KEY: Final = "relaybox.body_bytes_max"
_BIG_EXPONENT: Final = re.compile(rb"\d[eE]\+?\d{3}")
_RUN_DIGITS: Final = 100
_UTF8: Final = frozenset({"utf-8", "utf8"})


class BodyLimitMiddleware:
    """Stops reading a body at *limit_bytes*, also for routes that read it by other means than ours."""

    def __init__(self, app: ASGIApp, limit_bytes: int = BODY_BYTES_MAX) -> None:
        self._app = app
        self._limit_bytes = limit_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope[_LIMIT_KEY] = self._limit_bytes
        taken_bytes = 0

        async def receive_counted() -> Message:
            nonlocal taken_bytes
            message = await receive()
            taken_bytes += len(message.get("body", b""))
            _refuse_above(scope[_LIMIT_KEY], taken_bytes)
            return message

        await self._app(scope, receive_counted, send)


async def read_json(request: Request, limit_bytes: int = BODY_BYTES_MAX) -> Any:
    """The body of *request* as JSON that can be stored: dicts, lists, text, numbers, booleans, None.

    Raises:
        UnsupportedMediaType: it is not declared as ``application/json``, or is compressed.
        BodyTooLarge: it has more than *limit_bytes*, announced or counted.
        MalformedJson: it is not JSON.
        JsonTooDeep: it nests deeper than 64 levels.
        JsonNotStorable: it holds NUL, half a surrogate pair, or a number beyond a double.
    """
    _check_media_type(request.headers)
    return parse_json(await read_bytes(request, limit_bytes))


async def read_bytes(request: Request, limit_bytes: int = BODY_BYTES_MAX) -> bytes:
    """The body of *request* as it was sent, whatever it is.

    Raises:
        BodyTooLarge: it has more than *limit_bytes*, announced or counted.
    """
    request.scope[_LIMIT_KEY] = limit_bytes
    announced = request.headers.get("content-length", "")
    if announced.isascii() and announced.isdigit():
        # Compared by length first: Python refuses to read a number of 5,000 digits.
        _refuse_above(limit_bytes, int(announced) if len(announced) < 19 else limit_bytes + 1)
    chunks: list[bytes] = []
    taken_bytes = 0
    async for chunk in request.stream():
        taken_bytes += len(chunk)
        _refuse_above(limit_bytes, taken_bytes)
        chunks.append(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def read_model(request: Request, model: type[Model], limit_bytes: int = BODY_BYTES_MAX) -> Model:
    """The body of *request* as a *model*; see :func:`read_json` for what else it raises.

    Raises:
        ValidationFailed: the JSON has another form; the answer names the fields.
    """
    data = await read_json(request, limit_bytes)
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise ValidationFailed(validation_details(error)) from None


def json_body(model: type[BaseModel]) -> dict[str, Any]:
    """Document *model* as a route's body: ``openapi_extra=json_body(Order)``.

    For routes that read the body themselves; :func:`relaybox.http.create_app` moves the models it
    refers to among the document's components.
    """
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def parse_json(raw: bytes) -> Any:
    """Parse *raw* as :func:`read_json` does, without the request around it."""
    try:
        # Bounded by itself: it gives up at 200 levels, without recursion in Python.
        value = from_json(raw, allow_inf_nan=True)
    except ValueError as error:
        raise _explained(str(error)) from None
    # Most bodies have none of these; the walk over all values is for those that might.
    if raw.count(b"[") + raw.count(b"{") > DEPTH_MAX or b"\\u0000" in raw or _may_hold_huge_number(raw):
        _check_values(value)
    return value


def _may_hold_huge_number(raw: bytes) -> bool:
    """Whether a number in *raw* might not be a finite double; never says no to one that is not.

    Beyond 1.8e308 a number has an exponent of three digits, or 200 digits before its point, and
    any 200 digits hold one of the blocks of 100 looked at. Four plain looks at 1 MiB of text take
    8 ms, one expression with alternatives took 26.
    """
    if b"NaN" in raw or b"Infinity" in raw or _BIG_EXPONENT.search(raw) is not None:
        return True
    blocks = range(0, len(raw) - _RUN_DIGITS + 1, _RUN_DIGITS)
    return any(raw[start : start + _RUN_DIGITS].isdigit() for start in blocks)


def _explained(reason: str) -> RelayboxError:
    if "recursion limit" in reason:
        return JsonTooDeep(DEPTH_MAX)
    if "number out of range" in reason:
        return JsonNotStorable("The JSON holds a number too large to be stored")
    # An escape that is no hexadecimal number at all is an "invalid escape".
    if "hex escape" in reason:
        return JsonNotStorable("The JSON holds half of a surrogate pair, which is no character")
    return MalformedJson(f"The body is not JSON: {reason}")


def _check_values(value: Any) -> None:
    """Look at every value and key, level by level: no recursion, however deep."""
    level: list[Any] = [value]
    depth = 0
    while level:
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                pairs = cast("dict[str, Any]", item)
                _check_scalars(pairs)
                inner.extend(pairs.values())
            elif isinstance(item, list):
                inner.extend(cast("list[Any]", item))
        _check_scalars(level)
        depth += any(isinstance(item, (dict, list)) for item in level)
        if depth > DEPTH_MAX:
            raise JsonTooDeep(DEPTH_MAX)
        level = inner


def _check_scalars(items: Iterable[Any]) -> None:
    for item in items:
        if isinstance(item, str):
            if "\0" in item:
                raise JsonNotStorable("The JSON holds NUL (\\u0000), which PostgreSQL cannot store")
        elif isinstance(item, float):
            if not math.isfinite(item):
                raise JsonNotStorable("The JSON holds NaN, Infinity or a number too large to be stored")
        elif isinstance(item, int) and item.bit_length() > 1023:
            raise JsonNotStorable("The JSON holds a number too large to be stored")


def _check_media_type(headers: Headers) -> None:
    media_type, *parameters = headers.get("content-type", "").lower().split(";")
    charsets = [value.strip("\"' ") for name, _, value in map(_named, parameters) if name == "charset"]
    encoded = headers.get("content-encoding", "identity").strip().lower() != "identity"
    if media_type.strip() != "application/json" or not _UTF8.issuperset(charsets) or encoded:
        raise UnsupportedMediaType


def _named(parameter: str) -> tuple[str, str, str]:
    return parameter.strip().partition("=")


def _refuse_above(limit_bytes: int, bytes_: int) -> None:
    if bytes_ > limit_bytes:
        raise BodyTooLarge(limit_bytes)
