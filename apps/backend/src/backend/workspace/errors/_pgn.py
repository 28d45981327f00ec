"""Errors of imports, exports, their tasks and forms.

::

    RelayboxError
    └── PgnError
        ├── PgnRefused            422: the file is not imported
        │   ├── PgnInvalid        with the games, their lines and reasons
        │   ├── PgnTooManyGames
        │   └── StudyFull
        ├── FormMalformed         400
        ├── ResultNotReady        409, with the task's status
        ├── TooManyImports        429
        ├── TooManyUploads        429
        ├── TooManyExports        429
        ├── NodeExportsBusy       429
        ├── ExportSpaceFull       429, and also of an export's task
        ├── ArchiveTooLarge       only of an export's task
        └── TaskAttemptsExhausted only of a task
"""

from collections.abc import Sequence

from relaybox.errors import RelayboxError
from shared_types.workspace_pgn_api import SkippedPgn

__all__ = (
    "ArchiveTooLarge",
    "ExportSpaceFull",
    "FormMalformed",
    "NodeExportsBusy",
    "PgnError",
    "PgnInvalid",
    "PgnRefused",
    "PgnTooManyGames",
    "ResultNotReady",
    "StudyFull",
    "TaskAttemptsExhausted",
    "TooManyExports",
    "TooManyImports",
    "TooManyUploads",
)


class PgnError(RelayboxError):
    """Base of errors about files and their tasks; nothing was written."""

    error_code = "PGN_ERROR"


class PgnRefused(PgnError):
    """Base of errors for which no part of a file is imported."""

    error_code = "PGN_REFUSED"


class PgnInvalid(PgnRefused):
    """Raised when no game of a file can be imported, or, in strict mode, when a game cannot be imported."""

    error_code = "PGN_INVALID"

    def __init__(self, refused: Sequence[SkippedPgn], count: int) -> None:
        """Create the error with the games that cannot be imported.

        Args:
            refused: The first of these games; empty if the file has no game.
            count: The number of all these games.
        """
        first = refused[0] if refused else None
        #: Number in the file of the first of these games, from 1; None if the file has no game.
        self.game = first.game if first else None
        self.line = first.line if first else 1
        self.reason = first.reason if first else "the file contains no game"
        self.refused, self.count = refused, count
        where = f"game {self.game}, line {self.line}" if first else f"line {self.line}"
        many = f"none of the {count:,} games can be imported; the first is " if count > 1 else ""
        super().__init__(f"{many}{where}: {self.reason}; correct the file and import it again")


class PgnTooManyGames(PgnRefused):
    """Raised when a file has more games than one import may have."""

    error_code = "PGN_TOO_MANY_GAMES"

    def __init__(self, games_max: int) -> None:
        super().__init__(f"an import has at most {games_max:,} games; split the file")


class StudyFull(PgnRefused):
    """Raised when an import would give a study more chapters than the maximum."""

    error_code = "STUDY_FULL"

    def __init__(self, chapters_max: int) -> None:
        super().__init__(
            f"the study would have more than {chapters_max} chapters; import the file below a folder, "
            "which creates as many studies as the file needs"
        )


class FormMalformed(PgnError):
    """Raised when a body is not a ``multipart/form-data`` with one file (RFC 7578)."""

    error_code = "FORM_MALFORMED"


class ResultNotReady(PgnError):
    """Raised when the file of a task is requested and does not exist."""

    error_code = "RESULT_NOT_READY"

    def __init__(self, status: str) -> None:
        super().__init__(
            f"the task is {status} and has no file; wait for its end, or export again if it has ended"
        )
        self.status = status


class TooManyImports(PgnError):
    """Raised when a user has the maximum of large imports waiting or running."""

    error_code = "TOO_MANY_IMPORTS"

    def __init__(self, imports_max: int) -> None:
        super().__init__(
            f"{imports_max} large imports of yours wait or run; send the request again when one has ended"
        )


class TooManyExports(PgnError):
    """Raised when a user has the maximum of exports waiting or running."""

    error_code = "TOO_MANY_EXPORTS"

    def __init__(self, exports_max: int) -> None:
        super().__init__(
            f"{exports_max} exports of yours wait or run already; send the request again when one has ended"
        )


class NodeExportsBusy(PgnError):
    """Raised when a node has the maximum of exports waiting or running, and the user is not an editor."""

    error_code = "NODE_EXPORTS_BUSY"

    def __init__(self, exports_max: int) -> None:
        super().__init__(
            f"{exports_max} exports of this node wait or run already; send the request again in a while"
        )


class ExportSpaceFull(PgnError):
    """Raised when the files of a user's exports take the maximum of bytes."""

    error_code = "EXPORT_SPACE_FULL"

    def __init__(self, bytes_max: int, *, retry_after_s: int = 60) -> None:
        mebibytes = bytes_max // (1024 * 1024)
        super().__init__(
            f"the files of your exports would take more than {mebibytes} MiB; "
            "send the request again when old files have been removed"
        )
        self.retry_after_s = retry_after_s


class TooManyUploads(PgnError):
    """Raised when a process receives the maximum of large files, in total or from one user."""

    error_code = "TOO_MANY_UPLOADS"

    def __init__(self) -> None:
        super().__init__("too many large files are being received; send the request again in a few seconds")


class ArchiveTooLarge(PgnError):
    """Raised when the file of an export is too large."""

    error_code = "ARCHIVE_TOO_LARGE"

    def __init__(self, bytes_max: int) -> None:
        mebibytes = bytes_max // (1024 * 1024)
        super().__init__(f"the file would have more than {mebibytes} MiB; export smaller folders one by one")


class TaskAttemptsExhausted(PgnError):
    """Raised when a task has used all its attempts without an end."""

    error_code = "TASK_GAVE_UP"

    def __init__(self, attempts: int) -> None:
        super().__init__(f"the task was attempted {attempts} times without a result; start it again")
