"""Errors of imports and exports of PGN files, of their tasks, and of uploaded forms.

::

    RelayboxError
    └── PgnError
        ├── PgnRefused            422: the file is not imported
        │   ├── PgnInvalid        the response lists games with their lines and reasons
        │   ├── PgnTooManyGames
        │   └── StudyFull
        ├── FormMalformed         400
        ├── ResultNotReady        409: the response has the task's status
        ├── TooManyImports        429
        ├── TooManyUploads        429
        ├── TooManyExports        429
        ├── NodeExportsBusy       429
        ├── ExportSpaceFull       429, or the error of an export's task
        ├── ArchiveTooLarge       the error of an export's task
        └── TaskAttemptsExhausted the error of a task
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
    """Base class of errors about imported and exported files and their tasks; no row was written."""

    error_code = "PGN_ERROR"


class PgnRefused(PgnError):
    """Base class of errors for which no game of a file is imported."""

    error_code = "PGN_REFUSED"


class PgnInvalid(PgnRefused):
    """Raised when no game of a file can be imported; in strict mode, when one of its games cannot."""

    error_code = "PGN_INVALID"

    def __init__(self, refused: Sequence[SkippedPgn], count: int) -> None:
        """Create the error with the games that cannot be imported.

        Args:
            refused: The first games that cannot be imported; empty if the file has no game.
            count: The number of all games that cannot be imported.
        """
        first = refused[0] if refused else None
        #: Number in the file, from 1, of the first game that cannot be imported; None if the file has no
        #: game.
        self.game = first.game if first else None
        self.line = first.line if first else 1
        self.reason = first.reason if first else "the file contains no game"
        self.refused, self.count = refused, count
        where = f"game {self.game}, line {self.line}" if first else f"line {self.line}"
        many = f"none of the {count:,} games can be imported; the first is " if count > 1 else ""
        super().__init__(f"{many}{where}: {self.reason}; correct the file and import it again")


class PgnTooManyGames(PgnRefused):
    """Raised when a file has more games than the maximum of one import."""

    error_code = "PGN_TOO_MANY_GAMES"

    def __init__(self, games_max: int) -> None:
        super().__init__(f"the file has more than {games_max:,} games; split it into several files")


class StudyFull(PgnRefused):
    """Raised when an import would give a study more chapters than the maximum."""

    error_code = "STUDY_FULL"

    def __init__(self, chapters_max: int) -> None:
        super().__init__(
            f"the study would have more than {chapters_max} chapters; import the file into a folder "
            "instead: that import creates as many studies as the file needs"
        )


class FormMalformed(PgnError):
    """Raised when the body of an import is not a form (``multipart/form-data``, RFC 7578) with one file."""

    error_code = "FORM_MALFORMED"


class ResultNotReady(PgnError):
    """Raised when the file of an export's task is requested and does not exist: not yet, or not any more."""

    error_code = "RESULT_NOT_READY"

    def __init__(self, status: str) -> None:
        super().__init__(
            f"the task is {status} and has no file; wait for its end, or export again if it has ended"
        )
        self.status = status


class TooManyImports(PgnError):
    """Raised when a user has the maximum number of pending or running large imports."""

    error_code = "TOO_MANY_IMPORTS"

    def __init__(self, imports_max: int) -> None:
        super().__init__(
            f"you have {imports_max} pending or running large imports; send the request again after one ends"
        )


class TooManyExports(PgnError):
    """Raised when a user has the maximum number of pending or running exports."""

    error_code = "TOO_MANY_EXPORTS"

    def __init__(self, exports_max: int) -> None:
        super().__init__(
            f"you have {exports_max} pending or running exports; send the request again after one ends"
        )


class NodeExportsBusy(PgnError):
    """Raised when a node has the maximum number of pending or running exports, and the user is no editor."""

    error_code = "NODE_EXPORTS_BUSY"

    def __init__(self, exports_max: int) -> None:
        super().__init__(
            f"this node has {exports_max} pending or running exports; send the request again in a minute"
        )


class ExportSpaceFull(PgnError):
    """Raised when the kept files of a user's exports would exceed the maximum size."""

    error_code = "EXPORT_SPACE_FULL"

    def __init__(self, bytes_max: int, *, retry_after_s: int = 60) -> None:
        """*retry_after_s*: seconds until the oldest of these files is removed."""
        mebibytes = bytes_max // (1024 * 1024)
        super().__init__(
            f"the files of your exports would take more than {mebibytes} MiB; "
            "send the request again when the service has removed the oldest of these files"
        )
        self.retry_after_s = retry_after_s


class TooManyUploads(PgnError):
    """Raised when a process is receiving the maximum number of large files, in total or from one user."""

    error_code = "TOO_MANY_UPLOADS"

    def __init__(self) -> None:
        super().__init__("too many large files are being received; send the request again in a few seconds")


class ArchiveTooLarge(PgnError):
    """Raised when the file of an export would exceed WORKSPACE_EXPORT_BYTES_MAX."""

    error_code = "ARCHIVE_TOO_LARGE"

    def __init__(self, bytes_max: int) -> None:
        mebibytes = bytes_max // (1024 * 1024)
        super().__init__(f"the file would have more than {mebibytes} MiB; export its subfolders one by one")


class TaskAttemptsExhausted(PgnError):
    """Raised when all attempts of a task have ended without a result, for example by killed workers."""

    error_code = "TASK_GAVE_UP"

    def __init__(self, attempts: int) -> None:
        super().__init__(f"the task was attempted {attempts} times without a result; send the request again")
