"""Mapping of errors of PostgreSQL in a service."""

import asyncpg
import pytest
from relaybox.db import DatabaseRefused, DatabaseUnavailable, map_database_errors, map_service_errors


def server_error(sqlstate: str, message: str, file: str = "") -> asyncpg.PostgresError:
    return asyncpg.PostgresError.new({"C": sqlstate, "M": message, "F": file})


@pytest.mark.parametrize(
    ("sqlstate", "message"),
    [
        ("25006", "cannot execute INSERT in a read-only transaction"),
        ("57P03", "the database system is starting up"),
        ("57P04", "terminating connection because the database was dropped"),
        ("58030", "could not read block 0"),
        ("08P01", "server login has been failing, try again later"),
    ],
)
def test_server_that_cannot_work_is_unavailable(sqlstate: str, message: str) -> None:
    with pytest.raises(DatabaseUnavailable), map_database_errors():
        raise server_error(sqlstate, message)


@pytest.mark.parametrize("message", ["recovery is in progress", "Wiederherstellung läuft"])
def test_log_function_on_a_standby_is_an_outage_in_any_language(message: str) -> None:
    with pytest.raises(DatabaseUnavailable), map_database_errors():
        raise server_error("55000", message, "xlogfuncs.c")


def test_other_55000_errors_are_no_outage() -> None:
    with pytest.raises(asyncpg.PostgresError), map_database_errors():
        raise server_error("55000", "currval of sequence is not yet defined in this session", "sequence.c")


def test_missing_right_is_named_with_its_object() -> None:
    with pytest.raises(DatabaseRefused, match="permission denied for function f"), map_service_errors():
        raise server_error("42501", "permission denied for function f")


@pytest.mark.parametrize("sqlstate", ["42P01", "XX000", "22012", "0A000"])
def test_every_other_sqlstate_is_refused_in_a_service(sqlstate: str) -> None:
    with pytest.raises(DatabaseRefused, match=sqlstate) as refused, map_service_errors():
        raise server_error(sqlstate, "with what a user wrote")
    assert "user wrote" not in str(refused.value)


@pytest.mark.parametrize("sqlstate", ["22021", "22P05"])
def test_text_that_cannot_be_stored_has_its_own_remedy(sqlstate: str) -> None:
    wanted = rf"{sqlstate}.*U\+0000.*remove the character"
    with pytest.raises(DatabaseRefused, match=wanted) as refused, map_service_errors():
        raise server_error(sqlstate, "with what a user wrote")
    assert "migrate" not in str(refused.value)


def test_programming_error_in_a_service_passes_unchanged() -> None:
    with pytest.raises(ZeroDivisionError), map_service_errors():
        raise ZeroDivisionError
