"""Read request bodies as JSON that PostgreSQL can store, with limits of size and time.

The endpoint reads the body, after a dependency has checked the token. So a request without a token gets 401,
whatever its body is.
"""

import asyncio
import math
import re
import time
from collections.abc import Awaitable, Callable, Generator, Iterable
from types import coroutine
from typing import Any, Final, TypeVar, cast

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from relaybox.errors import RelayboxError
from relaybox.http._errors import (
    BodyTimeout,
    BodyTooLarge,
    JsonNotStorable,
    JsonTooDeep,
    JsonTooManyValues,
    MalformedJson,
    UnsupportedMediaType,
    ValidationFailed,
    validation_details,
)
from relaybox.settings import HttpSettings, load_settings

__all__ = (
    "BODY_BYTES_MAX",
    "BODY_ERRORS",
    "BodyLimitMiddleware",
    "content_length",
    "json_body",
    "limit_body",
    "parse_json",
    "read_bytes",
    "read_json",
    "read_model",
)

Model = TypeVar("Model", bound=BaseModel)
Parsed = TypeVar("Parsed")

#: Default limit of a request's body: 1 MiB.
BODY_BYTES_MAX: Final = 1024 * 1024
#: Levels of nesting that JSON may have; a number or a text has none.
DEPTH_MAX: Final = 64
#: Larger JSON is parsed in a thread: 1 MiB takes 20 to 400 ms.
_ON_LOOP_BYTES_MAX: Final = 1024 * 1024
#: Maximum number of values in JSON above 1 MiB. The parser holds Python's global lock even in a thread, and
#: so blocks the event loop: 4.4 s for 20 MiB of empty lists (7 million). Parsing 250,000 values takes about
#: as long as parsing 1 MiB of empty lists.
VALUES_MAX: Final = 250_000
#: What :func:`read_model` may raise, for ``error_responses``.
BODY_ERRORS: Final[tuple[type[RelayboxError], ...]] = (
    BodyTimeout,
    MalformedJson,
    BodyTooLarge,
    UnsupportedMediaType,
    JsonTooDeep,
    JsonTooManyValues,
    JsonNotStorable,
    ValidationFailed,
)

#: Key of the ASGI scope with the limit of the request's body in bytes; :func:`limit_body` changes the limit.
_LIMIT_KEY: Final = "relaybox.body_bytes_max"
_BIG_EXPONENT: Final = re.compile(rb"\d[eE]\+?\d{3}")
_RUN_DIGITS: Final = 100
_NUMBER_TOO_LARGE: Final = (
    "The JSON contains a number too large to be stored; send it as a string, or send a smaller number"
)
_UTF8: Final = frozenset({"utf-8", "utf8"})


class BodyLimitMiddleware:
    """Limit each request body in bytes and time, whether FastAPI or the endpoint reads the body.

    A client has ``HTTP_BODY_TIMEOUT_S`` to send its body, and a second more for each
    ``HTTP_BODY_RATE_MIN_BYTES_S`` bytes that have arrived. Only the time in which the application waits for
    the client counts. Reading a body beyond a limit raises BodyTimeout (408) or BodyTooLarge (413).

    Args:
        app: The application inside this middleware.
        limit_bytes: Maximum size of a body in bytes, unless the route sets another limit: by
            :func:`limit_body`, or by the argument *limit_bytes* of a function such as :func:`read_json`.
        settings: The time limits; None reads ``HTTP_*`` from the environment.
    """

    def __init__(
        self, app: ASGIApp, limit_bytes: int = BODY_BYTES_MAX, settings: HttpSettings | None = None
    ) -> None:
        self._app = app
        self._limit_bytes = limit_bytes
        self._settings = settings or load_settings(HttpSettings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope[_LIMIT_KEY] = self._limit_bytes
        await self._app(scope, _Body(scope, receive, self._settings).receive, send)


class _Body:
    """The body of one request, whose size and time are checked while it is received."""

    __slots__ = ("_arrived_bytes", "_rate_bytes_s", "_receive", "_scope", "_timeout_s", "_waited_s", "_whole")

    def __init__(self, scope: Scope, receive: Receive, settings: HttpSettings) -> None:
        self._scope = scope
        self._receive = receive
        self._timeout_s = settings.body_timeout_s
        self._rate_bytes_s = settings.body_rate_min_bytes_s
        self._arrived_bytes = 0
        self._waited_s = 0.0
        self._whole = False

    async def receive(self) -> Message:
        """Return the server's next ASGI message, and check the limits of the body.

        Raises:
            BodyTimeout: The body did not arrive in time.
            BodyTooLarge: The client has sent more bytes than the route accepts.
        """
        if self._whole:
            # After the body the next message is the client's disconnect, for which there is no time limit.
            return await self._receive()
        allowed_s = self._timeout_s + self._arrived_bytes / self._rate_bytes_s
        began_s = time.monotonic()
        try:
            message = await _within(allowed_s - self._waited_s, self._receive())
        except TimeoutError:
            raise BodyTimeout(allowed_s) from None
        self._waited_s += time.monotonic() - began_s
        self._whole = not message.get("more_body", False)
        self._arrived_bytes += len(message.get("body", b""))
        _check_size(self._scope[_LIMIT_KEY], self._arrived_bytes)
        return message


async def _within(seconds: float, message: Awaitable[Message]) -> Message:
    """Wait at most *seconds* for *message*, and return the message.

    A timer costs several microseconds, so a message that is available immediately is returned without one.

    Raises:
        TimeoutError: The message did not arrive in time.
    """
    steps = message.__await__()
    try:
        waits_for = next(steps)
    except StopIteration as ended:
        return ended.value
    async with asyncio.timeout(seconds):
        return await _rest_of(steps, waits_for)


@coroutine
def _rest_of(steps: Generator[Any, Any, Message], waits_for: Any) -> Generator[Any, Any, Message]:
    """Continue the coroutine *steps* to its end, after its first step returned the future *waits_for*."""
    while True:
        try:
            try:
                given = yield waits_for
            except BaseException as error:  # noqa: BLE001 - passed on to the waiting coroutine
                waits_for = steps.throw(error)
            else:
                waits_for = steps.send(given)
        except StopIteration as ended:
            return ended.value


def limit_body(request: Request, limit_bytes: int) -> None:
    """Set the maximum size of the body of *request* to *limit_bytes*, before the body is read.

    Raises:
        BodyTooLarge: ``Content-Length`` is larger than *limit_bytes*.
    """
    request.scope[_LIMIT_KEY] = limit_bytes
    _check_size(limit_bytes, content_length(request) or 0)


def content_length(request: Request) -> int | None:
    """Return the ``Content-Length`` of *request*; None if the header is missing or malformed."""
    announced = request.headers.get("content-length", "")
    if not announced.isascii() or not announced.isdigit():
        return None
    # A longer number becomes 10**18: Python raises ValueError for a number of over 4,300 digits.
    return int(announced) if len(announced) < 19 else 10**18


async def read_json(request: Request, limit_bytes: int | None = None) -> Any:
    """Return the body of *request* as JSON that PostgreSQL can store.

    Raises:
        UnsupportedMediaType: The body is not declared as ``application/json``, or is compressed.
        BodyTooLarge: The body is over *limit_bytes*, or the limit that :func:`read_bytes` uses for None.
        MalformedJson: The body is not JSON.
        JsonTooDeep: The JSON has more than 64 levels of nesting.
        JsonTooManyValues: The JSON is larger than 1 MiB and has more than 250,000 values, or more than
            250,000 strings, names of members included.
        JsonNotStorable: The JSON contains NUL, half of a surrogate pair, or a number too large for a double.
        BodyTimeout: The body did not arrive in time.
    """
    _check_media_type(request.headers)
    raw = await read_bytes(request, limit_bytes)
    return await _parse_in_thread_if_large(raw, parse_json)


async def read_bytes(request: Request, limit_bytes: int | None = None) -> bytes:
    """Return the body of *request* as it was sent.

    Args:
        request: The request.
        limit_bytes: Maximum size of the body; None for the limit that :func:`limit_body` has set, or else
            the application's limit (:class:`BodyLimitMiddleware`), or else 1 MiB.

    Raises:
        BodyTooLarge: ``Content-Length``, or the number of received bytes, is over the limit.
        BodyTimeout: The body did not arrive in time.
    """
    limit: int = request.scope.get(_LIMIT_KEY, BODY_BYTES_MAX) if limit_bytes is None else limit_bytes
    limit_body(request, limit)
    chunks: list[bytes] = []
    received_bytes = 0
    async for chunk in request.stream():
        received_bytes += len(chunk)
        _check_size(limit, received_bytes)
        chunks.append(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def read_model(request: Request, model: type[Model], limit_bytes: int | None = None) -> Model:
    """Return the body of *request* as an object of the class *model*.

    Also raises the errors of :func:`read_json`.

    Raises:
        ValidationFailed: The JSON does not match *model*; the response names the fields.
    """
    _check_media_type(request.headers)
    raw = await read_bytes(request, limit_bytes)
    return await _parse_in_thread_if_large(raw, lambda data: _parse_model(data, model))


def _parse_model(raw: bytes, model: type[Model]) -> Model:
    try:
        return model.model_validate(parse_json(raw))
    except ValidationError as error:
        raise ValidationFailed(validation_details(error)) from None


async def _parse_in_thread_if_large(raw: bytes, parse: Callable[[bytes], Parsed]) -> Parsed:
    """Return the result of *parse* for *raw*; call *parse* in a thread if *raw* is larger than 1 MiB."""
    return parse(raw) if len(raw) <= _ON_LOOP_BYTES_MAX else await asyncio.to_thread(parse, raw)


def json_body(model: type[BaseModel]) -> dict[str, Any]:
    """Return the argument ``openapi_extra`` of a route that reads its body by ``read_model(request, model)``.

    The result documents the body. An application of :func:`relaybox.http.create_app` moves the schemas of the
    models to which *model* refers into the components of the OpenAPI document.
    """
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def parse_json(raw: bytes) -> Any:
    """Parse JSON, and check that PostgreSQL can store it.

    Raises:
        MalformedJson, JsonTooDeep, JsonTooManyValues, JsonNotStorable: See :func:`read_json`.
    """
    if len(raw) > _ON_LOOP_BYTES_MAX:
        _refuse_many_values(raw)
    try:
        # The parser stops at 200 levels and does not recurse in Python, so any input is safe.
        value = from_json(raw, allow_inf_nan=True)
    except ValueError as error:
        raise _json_error(str(error)) from None
    # Values are checked one by one only if the text may contain a problem, which most bodies do not.
    if raw.count(b"[") + raw.count(b"{") > DEPTH_MAX or b"\\u0000" in raw or _may_hold_huge_number(raw):
        _check_values(value)
    return value


def _refuse_many_values(raw: bytes) -> None:
    """Check the number of values without parsing: count commas and opening brackets outside of strings.

    Raises:
        JsonTooManyValues: There are more than 250,000 values, or more than 250,000 strings, names of members
            included.
    """
    # Remove escaped backslashes before escaped quotes, because in the JSON text "\\" the last quote is not
    # escaped. Each step takes 10 to 60 ms for 20 MiB.
    plain = raw.replace(b"\\\\", b"").replace(b'\\"', b"") if b"\\" in raw else raw
    if plain.count(b'"') > 2 * VALUES_MAX:
        raise JsonTooManyValues(VALUES_MAX)
    outside = b"".join(plain.split(b'"')[::2])
    if sum(outside.count(mark) for mark in (b",", b"[", b"{")) > VALUES_MAX:
        raise JsonTooManyValues(VALUES_MAX)


def _may_hold_huge_number(raw: bytes) -> bool:
    """Return whether a number in *raw* may be too large for a double; also True for some smaller numbers.

    A number over 1.8e308 has an exponent of three digits, or at least 200 digits before its point. To find
    such digits, the text is checked in blocks of 100 bytes: a run of 200 digits fills at least one block. The
    searches for exponents and for digits together take 8 ms for 1 MiB; one regular expression took 26 ms.
    """
    if b"NaN" in raw or b"Infinity" in raw or _BIG_EXPONENT.search(raw) is not None:
        return True
    blocks = range(0, len(raw) - _RUN_DIGITS + 1, _RUN_DIGITS)
    return any(raw[start : start + _RUN_DIGITS].isdigit() for start in blocks)


def _json_error(reason: str) -> RelayboxError:
    if "recursion limit" in reason:
        return JsonTooDeep(DEPTH_MAX)
    if "number out of range" in reason:
        return JsonNotStorable(_NUMBER_TOO_LARGE)
    # The parser writes "hex escape" for half of a surrogate pair, and other words for a malformed escape.
    if "hex escape" in reason:
        return JsonNotStorable(
            "The JSON contains half of a surrogate pair, which is not a character; "
            "remove the escape of \\uD800 to \\uDFFF, or send both halves"
        )
    return MalformedJson(f"The body is not JSON: {reason}")


def _check_values(value: Any) -> None:
    """Check all values and member names of the JSON *value*, level by level and without recursion.

    Raises:
        JsonTooDeep: There are more than 64 levels.
        JsonNotStorable: PostgreSQL cannot store a value.
    """
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
                raise JsonNotStorable(
                    "The JSON contains NUL (\\u0000), which PostgreSQL cannot store; "
                    "remove it from strings and member names"
                )
        elif isinstance(item, float):
            if not math.isfinite(item):
                raise JsonNotStorable(
                    "The JSON contains NaN, Infinity or a number too large to be stored; "
                    "send null or a string"
                )
        elif isinstance(item, int) and item.bit_length() > 1023:
            raise JsonNotStorable(_NUMBER_TOO_LARGE)


def _check_media_type(headers: Headers) -> None:
    media_type, *parameters = headers.get("content-type", "").lower().split(";")
    charsets = [value.strip("\"' ") for name, _, value in map(_named, parameters) if name == "charset"]
    encoded = headers.get("content-encoding", "identity").strip().lower() != "identity"
    if media_type.strip() != "application/json" or not _UTF8.issuperset(charsets) or encoded:
        raise UnsupportedMediaType


def _named(parameter: str) -> tuple[str, str, str]:
    return parameter.strip().partition("=")


def _check_size(limit_bytes: int, bytes_: int) -> None:
    if bytes_ > limit_bytes:
        raise BodyTooLarge(limit_bytes)
