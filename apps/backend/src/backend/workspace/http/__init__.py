"""Where HTTP meets a workspace: who asks, what is read of a request, how it is answered."""

from backend.workspace.http._caching import ShareTokenCaching
from backend.workspace.http._concurrency import ConcurrencyLimit
from backend.workspace.http._cursors import cursor_int, cursor_time, decode_cursor, encode_cursor
from backend.workspace.http._dependencies import (
    MATCH_ERRORS,
    READ_ERRORS,
    RESOURCE_READ_ERRORS,
    RESOURCE_WRITE_ERRORS,
    SHARE_HEADER,
    WRITE_ERRORS,
    IfMatchHeader,
    Requester,
    RouteDependencies,
    documented_errors,
    json_response,
    parse_body,
    path_id,
)
from backend.workspace.http._share_tokens import SHARE_TOKEN_TTL_S, ShareTokens

__all__ = (
    "MATCH_ERRORS",
    "READ_ERRORS",
    "RESOURCE_READ_ERRORS",
    "RESOURCE_WRITE_ERRORS",
    "SHARE_HEADER",
    "SHARE_TOKEN_TTL_S",
    "WRITE_ERRORS",
    "ConcurrencyLimit",
    "IfMatchHeader",
    "Requester",
    "RouteDependencies",
    "ShareTokenCaching",
    "ShareTokens",
    "cursor_int",
    "cursor_time",
    "decode_cursor",
    "documented_errors",
    "encode_cursor",
    "json_response",
    "parse_body",
    "path_id",
)
