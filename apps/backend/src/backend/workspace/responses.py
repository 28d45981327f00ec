"""How the errors of a workspace are answered over HTTP."""

from relaybox.http import ANSWERS, ErrorAnswer, ErrorAnswers

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

WORKSPACE_ERROR_RESPONSES: ErrorAnswers = {
    **ANSWERS,
    PgnRefused: ErrorAnswer(status=422),
    PgnInvalid: ErrorAnswer(
        status=422,
        fields=lambda error: {
            "game": error.game,
            "line": error.line,
            "reason": error.reason,
            "skipped_count": error.count,
            "skipped": [one.model_dump() for one in error.refused],
        },
    ),
    FormMalformed: ErrorAnswer(status=400),
    TooManyImports: ErrorAnswer(status=429, headers={"Retry-After": "30"}),
    TooManyExports: ErrorAnswer(status=429, headers={"Retry-After": "30"}),
    NodeExportsBusy: ErrorAnswer(status=429, headers={"Retry-After": "30"}),
    ExportSpaceFull: ErrorAnswer(
        status=429,
        headers={"Retry-After": "60"},
        headers_of=lambda error: {"Retry-After": str(error.retry_after_s)},
    ),
    TooManyUploads: ErrorAnswer(status=429, headers={"Retry-After": "5"}),
    TooManyPasswords: ErrorAnswer(status=429, headers={"Retry-After": "5"}),
    ResultNotReady: ErrorAnswer(status=409, fields=lambda error: {"status": error.status}),
    ChessNotInstalled: ErrorAnswer(status=501),
    NodeNotFound: ErrorAnswer(status=404),
    ResourceNotFound: ErrorAnswer(status=404),
    RoleMissing: ErrorAnswer(status=403),
    NotTheAuthor: ErrorAnswer(status=403),
    IfMatchMissing: ErrorAnswer(status=428),
    IfMatchMalformed: ErrorAnswer(status=400),
    IfMatchWeak: ErrorAnswer(status=412),
    VersionStale: ErrorAnswer(status=412, fields=lambda error: {"current_version": error.current}),
    TitleTaken: ErrorAnswer(
        status=409, fields=lambda error: {"blocking_id": error.blocking_id and str(error.blocking_id)}
    ),
    NodeTrashed: ErrorAnswer(status=409),
    NodeNotTrashed: ErrorAnswer(status=409),
    NodeTrashedWithAncestor: ErrorAnswer(
        status=409, fields=lambda error: {"batch_root_id": str(error.batch_root)}
    ),
    AlreadyShared: ErrorAnswer(status=409),
    ShareLimitReached: ErrorAnswer(status=409),
    GrantRefused: ErrorAnswer(status=422),
    # As a bearer token's (RFC 9110, section 15.5.2): whoever sends one may do without a share token.
    ShareTokenInvalid: ErrorAnswer(status=401, headers={"WWW-Authenticate": "Bearer"}),
    LinkNotFound: ErrorAnswer(status=404),
    LinkPasswordWrong: ErrorAnswer(status=403),
    LinkTriesExceeded: ErrorAnswer(
        status=429,
        headers={"Retry-After": "1"},
        headers_of=lambda error: {"Retry-After": str(error.retry_after_s)},
    ),
    DiscussionRefused: ErrorAnswer(status=422),
    TreeRefused: ErrorAnswer(status=422),
    VersionRefused: ErrorAnswer(status=409),
    ChapterFull: ErrorAnswer(status=422),
    ChessError: ErrorAnswer(status=422),
    MoveExists: ErrorAnswer(status=409),
}
"""How the errors of a workspace are answered, beside the library's."""
