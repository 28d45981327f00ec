"""The HTTP responses to the errors of a workspace."""

from relaybox.http import ERROR_TABLE, ErrorResponse, ErrorTable

from backend.workspace.errors import (
    AlreadyShared,
    ChapterFull,
    ChessError,
    ChessNotInstalled,
    DiscussionRefused,
    ExportSpaceFull,
    FormMalformed,
    GrantRefused,
    IfMatchMalformed,
    IfMatchMissing,
    IfMatchWeak,
    LinkNotFound,
    LinkPasswordWrong,
    LinkTriesExceeded,
    MoveExists,
    NodeExportsBusy,
    NodeNotFound,
    NodeNotTrashed,
    NodeTrashed,
    NodeTrashedWithAncestor,
    NotTheAuthor,
    PgnInvalid,
    PgnRefused,
    ResourceNotFound,
    ResultNotReady,
    RoleMissing,
    ShareLimitReached,
    ShareTokenInvalid,
    TitleTaken,
    TooManyExports,
    TooManyImports,
    TooManyPasswords,
    TooManyUploads,
    TreeRefused,
    VersionRefused,
    VersionStale,
)

__all__ = ("WORKSPACE_ERROR_RESPONSES",)

WORKSPACE_ERROR_RESPONSES: ErrorTable = {
    **ERROR_TABLE,
    PgnRefused: ErrorResponse(status=422),
    PgnInvalid: ErrorResponse(
        status=422,
        fields=lambda error: {
            "game": error.game,
            "line": error.line,
            "reason": error.reason,
            "skipped_count": error.count,
            "skipped": [one.model_dump() for one in error.refused],
        },
    ),
    FormMalformed: ErrorResponse(status=400),
    TooManyImports: ErrorResponse(status=429, headers={"Retry-After": "30"}),
    TooManyExports: ErrorResponse(status=429, headers={"Retry-After": "30"}),
    NodeExportsBusy: ErrorResponse(status=429, headers={"Retry-After": "30"}),
    ExportSpaceFull: ErrorResponse(
        status=429,
        headers={"Retry-After": "60"},
        headers_of=lambda error: {"Retry-After": str(error.retry_after_s)},
    ),
    TooManyUploads: ErrorResponse(status=429, headers={"Retry-After": "5"}),
    TooManyPasswords: ErrorResponse(status=429, headers={"Retry-After": "5"}),
    ResultNotReady: ErrorResponse(status=409, fields=lambda error: {"status": error.status}),
    ChessNotInstalled: ErrorResponse(status=501),
    NodeNotFound: ErrorResponse(status=404),
    ResourceNotFound: ErrorResponse(status=404),
    RoleMissing: ErrorResponse(status=403),
    NotTheAuthor: ErrorResponse(status=403),
    IfMatchMissing: ErrorResponse(status=428),
    IfMatchMalformed: ErrorResponse(status=400),
    IfMatchWeak: ErrorResponse(status=412),
    VersionStale: ErrorResponse(status=412, fields=lambda error: {"current_version": error.current}),
    TitleTaken: ErrorResponse(
        status=409, fields=lambda error: {"blocking_id": error.blocking_id and str(error.blocking_id)}
    ),
    NodeTrashed: ErrorResponse(status=409),
    NodeNotTrashed: ErrorResponse(status=409),
    NodeTrashedWithAncestor: ErrorResponse(
        status=409, fields=lambda error: {"batch_root_id": str(error.batch_root)}
    ),
    AlreadyShared: ErrorResponse(status=409),
    ShareLimitReached: ErrorResponse(status=409),
    GrantRefused: ErrorResponse(status=422),
    # A 401 must name a scheme (RFC 9110, section 15.5.2): a client may send a bearer token instead.
    ShareTokenInvalid: ErrorResponse(status=401, headers={"WWW-Authenticate": "Bearer"}),
    LinkNotFound: ErrorResponse(status=404),
    LinkPasswordWrong: ErrorResponse(status=403),
    LinkTriesExceeded: ErrorResponse(
        status=429,
        headers={"Retry-After": "1"},
        headers_of=lambda error: {"Retry-After": str(error.retry_after_s)},
    ),
    DiscussionRefused: ErrorResponse(status=422),
    TreeRefused: ErrorResponse(status=422),
    VersionRefused: ErrorResponse(status=409),
    ChapterFull: ErrorResponse(status=422),
    ChessError: ErrorResponse(status=422),
    MoveExists: ErrorResponse(status=409),
}
"""HTTP status, headers and additional body fields of each error of the library and of the workspace."""
