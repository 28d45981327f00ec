"""Configure one log for structlog, which Relaybox uses, and for the standard library, which libraries use.

Levels: INFO normal work, WARNING retries, ERROR failures, DEBUG detail.
"""

import logging
import sys
import traceback
from contextlib import AbstractContextManager, suppress
from typing import Final, Literal, TextIO
from uuid import UUID

import structlog
from pydantic_core import to_json
from structlog.typing import EventDict, Processor, WrappedLogger

from relaybox.telemetry._redaction import redact, redact_text

__all__ = ("LogLevel", "configure_logging", "ensure_logging", "log_context", "traceback_of")

_TRACEBACK_CHARACTERS_HALF: Final = 10_000

#: Level of the log: lines of lower levels are not written.
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]

_ACCESS_LOG: Final = "uvicorn.access"
#: Loggers whose level is WARNING: at INFO they log each request or statement, or repeat lines of Relaybox.
_QUIET: Final = (_ACCESS_LOG, "uvicorn.error", "sqlalchemy", "httpx2", "httpcore2", "alembic")
#: Loggers whose own handlers are removed; with these handlers each of their lines would be logged twice.
_LIBRARIES: Final = ("uvicorn", "uvicorn.error", _ACCESS_LOG, "alembic", "sqlalchemy")


#: Length to which times in a terminal are cut, that of "12:34:56.789".
_MILLISECONDS: Final = 12


class _Writer:
    """Write rendered lines to a stream; ``name`` is the argument of ``structlog.get_logger``."""

    def __init__(self, stream: TextIO, name: str | None) -> None:
        self._stream = stream
        self.name = name

    def msg(self, line: str) -> None:
        # A full disk or a closed pipe must not fail the code that writes a log line.
        with suppress(OSError):
            self._stream.write(line + "\n")
            self._stream.flush()

    debug = info = warning = error = critical = exception = msg


def configure_logging(
    service: str, level: LogLevel = "INFO", json: bool | None = None, *, stream: TextIO | None = None
) -> None:
    """Send every log line of this process to *stream*, with secrets redacted.

    Loggers of the standard library (uvicorn, alembic, SQLAlchemy…) are included, so start uvicorn with
    ``log_config=None, access_log=False``. Call this once, at the start of the process; another call replaces
    the configuration.

    Args:
        service: The field ``service`` of each JSON line.
        level: The lowest level that is logged.
        json: Whether lines are JSON objects; None for JSON unless *stream* is a terminal.
        stream: None for standard error.
    """
    output = sys.stderr if stream is None else stream
    as_json = not output.isatty() if json is None else json
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        _add_logger,
    ]
    final: list[Processor] = [
        *_FAILURES,
        redact,
        # These run after `redact`: they add only fields without secrets, and render the line.
        *(_json_processors(service) if as_json else _terminal_processors(output)),
    ]
    structlog.configure(
        processors=[*shared, *final],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=lambda *names: _Writer(output, names[0] if names else None),
        cache_logger_on_first_use=False,
    )
    _route_standard_library([*shared, structlog.stdlib.ExtraAdder()], final, output, level)


def ensure_logging(service: str, level: LogLevel = "INFO", json: bool | None = None) -> None:
    """Configure logging as :func:`configure_logging` does, unless the application has configured logging.

    * If structlog is configured, neither its configuration nor that of the standard library is changed.
    * If the root logger has handlers, the application has configured the standard library's logging. The
      handlers, formats and levels are not changed. They are also used for the lines of Relaybox, with secrets
      redacted.
    * Otherwise, logging is configured as by :func:`configure_logging`. Uvicorn's lines about its start and
      end are logged, but not its access log.

    In all cases the query string is removed from the lines of uvicorn's access log, because a query string
    may contain a stream ticket (a secret that opens an event stream).
    """
    logging.getLogger(_ACCESS_LOG).addFilter(_remove_query)
    if structlog.is_configured():
        return
    if logging.getLogger().handlers:
        _use_standard_library()
        return
    configure_logging(service, level, json)
    # At WARNING, `uvicorn app:app` would log neither its address nor a failed start.
    logging.getLogger("uvicorn.error").setLevel(logging.INFO)


def traceback_of(error: BaseException) -> str:
    """Return the traceback of *error* as text for the field ``traceback`` of a log line, secrets redacted.

    Relaybox does not log failures with ``exc_info``, because the application's configuration of structlog may
    render that field with the local variables of each frame, as structlog's default does if ``rich`` is
    installed.
    Local variables contain tokens and private input (G71), and rendering them blocked the process for 0.7 to
    0.9 s. A text of over 20,000 characters is reduced to its first and its last 10,000.
    """
    text = "".join(traceback.format_exception(error)).rstrip()
    if len(text) > 2 * _TRACEBACK_CHARACTERS_HALF:
        text = f"{text[:_TRACEBACK_CHARACTERS_HALF]}\n…\n{text[-_TRACEBACK_CHARACTERS_HALF:]}"
    return redact_text(text)


def log_context(
    *,
    request_id: str | None = None,
    correlation_id: UUID | str | None = None,
    event_id: UUID | str | None = None,
) -> AbstractContextManager[None]:
    """Add the given ids to each log line of a ``with`` block and of asyncio tasks that the block starts."""
    ids = {"request_id": request_id, "correlation_id": correlation_id, "event_id": event_id}
    return structlog.contextvars.bound_contextvars(
        **{name: str(value) for name, value in ids.items() if value is not None}
    )


def _use_standard_library() -> None:
    """Configure structlog to pass its lines to the loggers of the standard library."""
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.contextvars.merge_contextvars,
            *_FAILURES,
            redact,
            structlog.dev.ConsoleRenderer(
                colors=False,
                sort_keys=False,
                pad_event_to=0,
                exception_formatter=structlog.dev.plain_traceback,
            ),
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def _remove_query(record: logging.LogRecord) -> bool:
    """Remove the query string from a record of uvicorn's access log; keep the record."""
    if isinstance(record.args, tuple):
        record.args = tuple(
            argument.partition("?")[0] if isinstance(argument, str) else argument for argument in record.args
        )
    return True


def _route_standard_library(
    before: list[Processor], final: list[Processor], output: TextIO, level: LogLevel
) -> None:
    handler = logging.StreamHandler(output)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=before,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *final],
        )
    )
    for name in _LIBRARIES:
        foreign = logging.getLogger(name)
        foreign.handlers.clear()
        foreign.propagate = True
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    root = logging.getLogger()
    # Remove only handlers of an earlier call or of logging.basicConfig(). Test frameworks and monitoring
    # libraries add handlers of other classes, which must stay.
    root.handlers = [known for known in root.handlers if type(known) is not logging.StreamHandler]
    root.addHandler(handler)
    root.setLevel(level)
    logging.captureWarnings(capture=True)


def _add_logger(logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    record: logging.LogRecord | None = event.get("_record")
    name = getattr(logger, "name", None) if record is None else record.name
    if name is not None:
        event["logger"] = name
    return event


def _show_traceback(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Rename the field ``traceback`` to ``exception``, which the renderers expect."""
    if "traceback" in event:
        event["exception"] = event.pop("traceback")
    return event


#: Processors that add tracebacks as text, without local variables.
_FAILURES: Final[list[Processor]] = [structlog.processors.format_exc_info, _show_traceback]


def _mark_with(service: str) -> Processor:
    def mark(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event["service"] = service
        return event

    return mark


def _json_processors(service: str) -> list[Processor]:
    return [structlog.processors.TimeStamper(fmt="iso", utc=True), _mark_with(service), _render_json]


def _terminal_processors(output: TextIO) -> list[Processor]:
    """Return processors for short lines, without date, service and module."""
    renderer = structlog.dev.ConsoleRenderer(
        colors=output.isatty(),
        sort_keys=False,
        # The default formatter prints local variables, which may be private.
        exception_formatter=structlog.dev.plain_traceback,
    )
    return [structlog.processors.TimeStamper(fmt="%H:%M:%S.%f", utc=False), _shorten, renderer]


def _shorten(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    # `color_message` is uvicorn's message again, with colour codes.
    for name in ("logger", "color_message"):
        event.pop(name, None)
    event["timestamp"] = event["timestamp"][:_MILLISECONDS]
    return event


def _render_json(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    event.pop("color_message", None)
    try:
        return to_json(event, fallback=repr, inf_nan_mode="strings").decode()
    except ValueError:
        # A text with a lone surrogate cannot be encoded as UTF-8: log the line with escapes.
        return to_json({"event": ascii(event), "level": event.get("level")}).decode()
