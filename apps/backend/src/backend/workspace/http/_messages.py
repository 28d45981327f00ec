"""Read requests, build responses, and encode the cursors of pages."""

import base64
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final, TypeVar
from uuid import UUID

from fastapi import Query, Request
from pydantic import BaseModel
from pydantic_core import from_json, to_json
from relaybox.errors import Detail
from relaybox.http import ValidationFailed, error_responses, read_model
from starlette.responses import Response

from backend.workspace.core import etag
from backend.workspace.errors import NodeNotFound
from backend.workspace.responses import WORKSPACE_ERROR_RESPONSES

__all__ = (
    "Cursor",
    "PageLimit",
    "cursor_int",
    "cursor_time",
    "decode_cursor",
    "documented_errors",
    "encode_cursor",
    "json_response",
    "parse_body",
    "path_id",
)

Model = TypeVar("Model", bound=BaseModel)
PageLimit = Annotated[int, Query(ge=1, le=200)]
Cursor = Annotated[str | None, Query(max_length=200)]
_INTEGER_MAX: Final = 2_147_483_647


def documented_errors(*errors: Any) -> dict[int | str, dict[str, Any]]:
    """Return the argument ``responses`` of a route that may raise the error classes *errors*."""
    return error_responses(*errors, error_table=WORKSPACE_ERROR_RESPONSES)


def path_id(request: Request, name: str = "node_id") -> UUID:
    """Return the path parameter *name* as an id.

    Raises:
        NodeNotFound: The parameter is not a UUID, so no node has this id.
    """
    try:
        return UUID(request.path_params[name])
    except ValueError:
        raise NodeNotFound from None


async def parse_body(request: Request, model: type[Model]) -> Model:
    """Parse the body of a request as *model*; return the same object to each caller in the request.

    Raises:
        HttpError: See :func:`relaybox.http.read_model`.
    """
    parsed: Any = getattr(request.state, "body", None)
    if not isinstance(parsed, model):
        parsed = request.state.body = await read_model(request, model)
    return parsed


def json_response(
    status: int, body: bytes | object, *, version: int | None = None, location: str | None = None
) -> Response:
    """Return a JSON response.

    Args:
        status: The HTTP status.
        body: An object to encode as JSON, or the bytes of JSON.
        version: The version for the header ETag; None for no such header.
        location: The value of the header Location; None for no such header.
    """
    headers = {} if version is None else {"ETag": etag(version)}
    if location is not None:
        headers["Location"] = location
    content = body if isinstance(body, bytes) else to_json(body)
    return Response(content, status, headers, media_type="application/json")


def encode_cursor(*position: object) -> str:
    """Return the cursor that a client sends for the next page: the sort values of a page's last item."""
    return base64.urlsafe_b64encode(to_json(position)).decode()


def decode_cursor(cursor: str | None, *types: Callable[[Any], Any]) -> Sequence[Any]:
    """Return the values that :func:`encode_cursor` has encoded in *cursor*; without a cursor, only None.

    Args:
        cursor: The cursor that the client sent; None for the first page.
        types: For each value, a function that checks and converts the value.

    Raises:
        ValidationFailed: *cursor* is not a result of :func:`encode_cursor` with values of these types.
    """
    if cursor is None:
        return [None] * len(types)
    try:
        parts = from_json(base64.urlsafe_b64decode(cursor))
        return [convert(part) for convert, part in zip(types, parts, strict=True)]
    except (ValueError, TypeError, AttributeError, OverflowError):
        detail = Detail(field="query.cursor", message="not a cursor; send next_cursor of the previous page")
        raise ValidationFailed([detail]) from None


def cursor_time(text: str) -> datetime:
    """Convert a time of a cursor to UTC; a type for :func:`decode_cursor`.

    Raises:
        ValueError, TypeError, OverflowError: PostgreSQL cannot store this time.
    """
    return datetime.fromisoformat(text).astimezone(UTC)


def cursor_int(number: object) -> int:
    """Check an integer of a cursor; a type for :func:`decode_cursor`.

    Raises:
        ValueError: The value is not an integer, or too large for the type integer of PostgreSQL.
    """
    if isinstance(number, bool) or not isinstance(number, int) or abs(number) > _INTEGER_MAX:
        raise ValueError
    return number
