"""Why a file is not imported, and what else a task or a form may be refused for.

Apart from the errors of nodes, which these have nothing to do with.

::

    RelayboxError
    └── PgnError
        ├── PgnRefused            422: a file that is not imported
        │   ├── PgnInvalid        with the games, their lines and reasons
        │   ├── PgnTooManyGames
        │   └── StudyFull
        ├── FormMalformed         400
        ├── ResultNotReady        409, with the task's status
        ├── TooManyImports        429
        ├── TooManyUploads        429
        ├── TooManyExports        429
        ├── NodeExportsBusy       429
        ├── ExportSpaceFull       429, and of an export's task
        ├── ArchiveTooLarge       of an export's task
        └── TaskAttemptsExhausted            of a task
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
    """Base of what is refused about files and tasks; nothing was written."""

    error_code = "PGN_ERROR"


class PgnRefused(PgnError):
    """Base of the reasons for which a file is not imported; nothing of it was."""

    error_code = "PGN_REFUSED"


class PgnInvalid(PgnRefused):
    """Raised when a file has no game that can be imported, or, where that is asked for, one that cannot."""

    error_code = "PGN_INVALID"

    def __init__(self, refused: Sequence[SkippedPgn], count: int) -> None:
        """Name the games that were refused.

        Args:
            refused: The first of them; empty when the file has no game at all.
            count: How many there are.
        """
        first = refused[0] if refused else None
        #: Place of the first one in the file, from 1; null when there is no game.
        self.game = first.game if first else None
        self.line = first.line if first else 1
        self.reason = first.reason if first else "there is no game in it"
        self.refused, self.count = refused, count
        where = f"game {self.game}, line {self.line}" if first else f"line {self.line}"
        many = f"none of the {count:,} games can be imported; the first is " if count > 1 else ""
        super().__init__(f"{many}{where}: {self.reason}; correct the file and import it again")


class PgnTooManyGames(PgnRefused):
    """Raised when a file has more games than one import takes."""

    error_code = "PGN_TOO_MANY_GAMES"

    def __init__(self, games_max: int) -> None:
        super().__init__(f"an import takes at most {games_max:,} games; split the file")


class StudyFull(PgnRefused):
    """Raised when a study would get more chapters than it may have."""

    error_code = "STUDY_FULL"

    def __init__(self, chapters_max: int) -> None:
        super().__init__(
            f"the study would have more than {chapters_max} chapters; import the file below a folder, "
            "which makes as many studies as it needs"
        )


class FormMalformed(PgnError):
    """Raised when a body is no ``multipart/form-data`` with one file (RFC 7578)."""

    error_code = "FORM_MALFORMED"


class ResultNotReady(PgnError):
    """Raised when the file of a task is asked for that has not made one."""

    error_code = "RESULT_NOT_READY"

    def __init__(self, status: str) -> None:
        super().__init__(
            f"the task is {status} and has no file; wait for its end, or export anew if it has ended"
        )
        self.status = status


class TooManyImports(PgnError):
    """Raised when somebody has as many large files waiting for the worker as they may have."""

    error_code = "TOO_MANY_IMPORTS"

    def __init__(self, imports_max: int) -> None:
        super().__init__(
            f"{imports_max} large imports of yours wait or run already; send it again when one has ended"
        )


class TooManyExports(PgnError):
    """Raised when a person has as many exports waiting or running as allowed."""

    error_code = "TOO_MANY_EXPORTS"

    def __init__(self, exports_max: int) -> None:
        super().__init__(
            f"{exports_max} exports of yours wait or run already; send the request again when one has ended"
        )


class NodeExportsBusy(PgnError):
    """Raised when readers of a node have as many exports of it waiting or running as allowed."""

    error_code = "NODE_EXPORTS_BUSY"

    def __init__(self, exports_max: int) -> None:
        super().__init__(
            f"{exports_max} exports of this node wait or run already; send the request again in a while"
        )


class ExportSpaceFull(PgnError):
    """Raised when the files of a person's exports take as many bytes as allowed."""

    error_code = "EXPORT_SPACE_FULL"

    def __init__(self, bytes_max: int, *, retry_after_s: int = 60) -> None:
        mebibytes = bytes_max // (1024 * 1024)
        super().__init__(
            f"the files of your exports would take more than {mebibytes} MiB; "
            "send the request again when old files have been removed"
        )
        self.retry_after_s = retry_after_s


class TooManyUploads(PgnError):
    """Raised when a process, or one person, has as many large files under way as they may have."""

    error_code = "TOO_MANY_UPLOADS"

    def __init__(self) -> None:
        super().__init__("Too many large files are being received; send it again in a moment")


class ArchiveTooLarge(PgnError):
    """Raised when the file of an export would be too large."""

    error_code = "ARCHIVE_TOO_LARGE"

    def __init__(self, bytes_max: int) -> None:
        mebibytes = bytes_max // (1024 * 1024)
        super().__init__(f"the file would have more than {mebibytes} MiB; export smaller folders one by one")


class TaskAttemptsExhausted(PgnError):
    """Raised when a task was tried as often as it may be and never ended."""

    error_code = "TASK_GAVE_UP"

    def __init__(self, attempts: int) -> None:
        super().__init__(f"it was tried {attempts} times and never ended; ask for it again")
