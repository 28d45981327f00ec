"""SQL files: named queries, read once, with marked places for parts of other files."""

import sys
from pathlib import Path

import pytest
from relaybox.db import Queries, load_queries


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Load a SQL text as if it were in a file beside a module."""
    monkeypatch.syspath_prepend(tmp_path)

    def read(text: str) -> Queries:
        package = tmp_path / "somewhere_sql"
        package.mkdir()
        (package / "__init__.py").touch()
        (package / "q.sql").write_text(text)
        return load_queries("somewhere_sql", "q.sql")

    yield read
    sys.modules.pop("somewhere_sql", None)


def test_queries_are_read_by_name_without_semicolon(read) -> None:
    queries = read("-- name: one\n-- Purpose.\nSELECT 1;\n\n-- name: two\nSELECT 2\n")
    assert dict(queries) == {"one": "-- Purpose.\nSELECT 1", "two": "SELECT 2"}
    assert (list(queries), len(queries)) == (["one", "two"], 2)


def test_error_for_an_unknown_query_lists_the_known_ones(read) -> None:
    queries = read("-- name: one\nSELECT 1\n-- name: two\nSELECT 2")
    with pytest.raises(KeyError, match=r"no query 'tow' in somewhere_sql:q\.sql; it has one, two"):
        queries["tow"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("SELECT 0;\n-- name: one\nSELECT 1", "text before the first"),
        ("-- name: one\nSELECT 1\n-- name: one\nSELECT 2", "duplicate query name"),
    ],
)
def test_ambiguous_file_is_refused(read, text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        read(text)


def test_include_is_replaced_by_the_part_of_its_name(read) -> None:
    queries = read(
        "-- name: all\nWITH a AS (\n  -- include: part\n) SELECT * FROM a\n-- name: it\nSELECT $1 '\\1'"
    )
    filled = queries.including("all", part=queries["it"])
    assert filled == "WITH a AS (\nSELECT $1 '\\1'\n) SELECT * FROM a"


def test_include_without_its_part_is_an_error(read) -> None:
    with pytest.raises(KeyError, match=r"query 'all' in somewhere_sql:q\.sql has the placeholder 'part'"):
        read("-- name: all\n-- include: part\n").including("all", other="SELECT 1")


def test_missing_file_is_an_error_at_import() -> None:
    with pytest.raises(FileNotFoundError):
        load_queries("relaybox.db", "nothing.sql")
