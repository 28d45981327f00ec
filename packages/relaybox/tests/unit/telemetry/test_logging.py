"""The log: one format for all lines, ids on every line, secrets in none."""

import io
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog
from relaybox.telemetry import REDACTED, configure_logging, log_context, redact

Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def root_logger() -> Iterator[logging.Logger]:
    root = logging.getLogger()
    before = (list(root.handlers), root.level)
    yield root
    root.handlers, root.level = before
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


@pytest.fixture
def lines(root_logger: logging.Logger) -> Lines:
    stream = io.StringIO()
    configure_logging("test-service", "INFO", stream=stream)
    return lambda: [json.loads(line) for line in stream.getvalue().splitlines()]


def test_log_line_is_json_without_a_terminal(lines: Lines) -> None:
    structlog.get_logger("relaybox.x").info("thing.done", rows=3)
    (line,) = lines()
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "thing.done",
        "rows": 3,
        "level": "info",
        "logger": "relaybox.x",
        "service": "test-service",
    }


def test_lines_of_the_standard_library_have_the_same_format(lines: Lines) -> None:
    logging.getLogger("some.library").info("Started %s", "here", extra={"port": 1})
    (line,) = lines()
    assert (line["event"], line["level"], line["logger"]) == ("Started here", "info", "some.library")
    assert line["service"] == "test-service"
    assert line["port"] == 1


def test_lines_below_the_level_are_not_written(lines: Lines) -> None:
    structlog.get_logger().debug("detail")
    logging.getLogger("sqlalchemy.engine").info("SELECT 1")
    assert lines() == []


def test_bound_ids_are_on_every_line_until_their_block_ends(lines: Lines) -> None:
    with log_context(request_id="r", event_id="e"), log_context(correlation_id="c"):
        structlog.get_logger().info("inside")
    structlog.get_logger().info("outside")
    inside, outside = lines()
    assert (inside["request_id"], inside["correlation_id"], inside["event_id"]) == ("r", "c", "e")
    assert not {"request_id", "correlation_id", "event_id"} & outside.keys()


def test_second_configuration_replaces_the_first(root_logger: logging.Logger) -> None:
    first, second = io.StringIO(), io.StringIO()
    configure_logging("one", stream=first)
    configure_logging("two", stream=second)
    logging.getLogger("library").warning("once")
    assert first.getvalue() == ""
    assert len(second.getvalue().splitlines()) == 1


def test_terminal_gets_readable_lines_with_plain_tracebacks(root_logger: logging.Logger) -> None:
    stream = io.StringIO()
    configure_logging("test-service", json=False, stream=stream)
    structlog.get_logger().error("went.wrong", exc_info=_raised(hidden=["local", "variable"]))
    text = stream.getvalue()
    assert "went.wrong" in text
    assert "Traceback" in text
    assert "hunter2" not in text
    assert "['local', 'variable']" not in text


def _raised(hidden: list[str]) -> Exception:
    try:
        hidden.index("password=hunter2")
    except ValueError as error:
        return error
    raise AssertionError


def test_text_that_is_no_unicode_is_logged(lines: Lines) -> None:
    structlog.get_logger().info("odd", value="\ud800")
    (line,) = lines()
    assert "odd" in line["event"]


def test_log_that_cannot_be_written_raises_no_exception(root_logger: logging.Logger) -> None:
    class Full(io.StringIO):
        def write(self, _text: str, /) -> int:
            raise OSError(28, "No space left on device")

    configure_logging("test-service", stream=Full())
    structlog.get_logger().info("lost")


@pytest.mark.parametrize(
    "key",
    [
        "authorization",
        "Authorization",
        "token",
        "jwt_secret",
        "POSTGRES_PASSWORD",
        "dbPassword",
        "Set-Cookie",
        "api_key",
    ],
)
def test_value_whose_key_names_a_secret_is_redacted(key: str) -> None:
    assert redact(None, "info", {"outer": [{key: "s3cret"}]}) == {"outer": [{key: REDACTED}]}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Authorization: Bearer abc.def", f"Authorization: {REDACTED}"),
        ("sent bearer abc.def, refused", f"sent bearer {REDACTED}, refused"),
        ("got eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln here", f"got {REDACTED} here"),
        (
            "postgresql+asyncpg://user:p%40ss@host:5432/db",
            f"postgresql+asyncpg://user:{REDACTED}@host:5432/db",
        ),
        ("connect password='a b' host=x", f"connect password={REDACTED} host=x"),
        ('{"jwt_secret": "zz", "n": 1}', f'{{"jwt_secret": {REDACTED}, "n": 1}}'),
        ("GET /stream?ticket=abc&x=1", f"GET /stream?ticket={REDACTED}&x=1"),
        ("bearer\tabc", f"bearer\t{REDACTED}"),
        ("Basic\nYTpi", f"Basic\n{REDACTED}"),
        ("Bearer\u00a0abc", f"Bearer\u00a0{REDACTED}"),
    ],
)
def test_secrets_inside_a_text_are_redacted(text: str, expected: str) -> None:
    assert redact(None, "info", {"event": text, "b": text.encode()}) == {"event": expected, "b": expected}


@pytest.mark.parametrize(
    "text", ["/api/v1/sessions/{id}", "12:30:01 a=b", "the tokenizer ran", "http://host:80/path"]
)
def test_texts_without_secrets_are_unchanged(text: str) -> None:
    assert redact(None, "info", {"event": text}) == {"event": text}


def test_deeply_nested_value_is_redacted_as_a_whole() -> None:
    nested: Any = "harmless down to the maximum depth"
    for _ in range(50):
        nested = [nested]
    told = str(redact(None, "info", {"event": nested}))
    assert REDACTED in told
    assert "harmless" not in told
