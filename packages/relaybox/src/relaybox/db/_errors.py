"""Errors of PostgreSQL, and the mapping of errors of asyncpg and SQLAlchemy to them.

::

    RelayboxError
    └── DatabaseError
        ├── DatabaseUnavailable   no connection, a broken connection, or a read-only server
        ├── DatabaseBusy          a lock or a connection was not granted in time
        ├── DatabaseRefused       a service's own statement was rejected: a migration or right is missing
        ├── RetryTransaction      a conflict: the whole transaction can be repeated
        └── TransactionAborted    the transaction was continued after a failed statement
"""

import os
import re
import ssl
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

import asyncpg
import sqlalchemy.exc

from relaybox.errors import RelayboxError

__all__ = (
    "INSUFFICIENT_PRIVILEGE",
    "READ_ONLY_MESSAGE",
    "TRANSIENT_ERRORS",
    "DatabaseBusy",
    "DatabaseError",
    "DatabaseRefused",
    "DatabaseUnavailable",
    "RetryTransaction",
    "TransactionAborted",
    "connection_error",
    "constraint_of",
    "is_read_only",
    "is_server_away",
    "map_database_errors",
    "map_service_errors",
    "sqlstate_of",
    "unreachable",
)

UNREACHABLE_MESSAGE: Final = "PostgreSQL cannot be reached; check POSTGRES_HOST, POSTGRES_PORT and the server"
#: OpenSSL's verify codes: the certificate does not contain the host name (62) or the IP address (64).
_NAME_MISMATCH: Final = frozenset({62, 64})
#: asyncpg raises InternalClientError if the connection ends at the moment when a statement begins.
_DRIVER_ERRORS: Final = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    sqlalchemy.exc.SQLAlchemyError,
)
_ABORTED: Final = "25P02"
_SERIALIZATION: Final = frozenset({"40001", "40P01"})
#: SQLSTATEs lock_not_available, query_canceled (statement_timeout), and insufficient resources (class 53).
_BUSY: Final = {
    "55P03": "a lock was not granted in time",
    "57014": "a statement took too long and was cancelled",
    **dict.fromkeys(
        ("53000", "53100", "53200", "53300", "53400"), "the server lacks memory, disk space or connections"
    ),
}
#: SQLSTATEs of connection exceptions (class 08; PgBouncer sends 08P01 for a server that it cannot reach),
#: system errors (class 58), shutdown, crash, start-up, dropped database, and ended idle sessions.
_UNAVAILABLE: Final = frozenset(
    {"08000", "08001", "08003", "08004", "08006", "08007", "08P01", "58000", "58030"}
    | {"57P01", "57P02", "57P03", "57P04", "57P05", "25P03"}
)
#: invalid_sql_statement_name, duplicate_prepared_statement: a pooler changed the server connection.
_STATEMENT_NAMES: Final = frozenset({"26000", "42P05"})
_STARTUP_PARAMETER: Final = re.compile(r"unsupported startup parameter(?: in options)?: (\w+)")
#: read_only_sql_transaction: a standby, or a primary that was demoted.
_READ_ONLY: Final = "25006"
#: object_not_in_prerequisite_state has many causes. A standby raises it for functions of the write-ahead
#: log. PostgreSQL's source file identifies this cause; the message does not, as it depends on lc_messages.
_NOT_READY: Final = "55000"
_LOG_FUNCTIONS: Final = "xlogfuncs.c"
#: Message of a :class:`DatabaseUnavailable` whose cause is a server that refuses writes.
READ_ONLY_MESSAGE: Final = (
    "PostgreSQL is read-only (a standby, or default_transaction_read_only is on); "
    "set POSTGRES_HOST to the primary"
)
#: insufficient_privilege.
INSUFFICIENT_PRIVILEGE: Final = "42501"
#: invalid_authorization_specification: the role is unknown, or must use TLS or a certificate.
INVALID_AUTHORIZATION: Final = "28000"
_CREDENTIALS: Final = "POSTGRES_USER, POSTGRES_PASSWORD and POSTGRES_DB"
_REMEDIES: Final = {
    INVALID_AUTHORIZATION: (
        "POSTGRES_USER, POSTGRES_SSL_MODE, POSTGRES_SSL_CERT_FILE and the server's pg_hba.conf"
    ),
    "28P01": _CREDENTIALS,  # a wrong password, or an unknown role
    "3D000": _CREDENTIALS,  # no such database
}
_REFUSED_REMEDY: Final = (
    "check PostgreSQL's log, the migrations (relaybox migrate up) and the rights of POSTGRES_USER"
)
#: character_not_in_repertoire, and untranslatable_character, which JSONB raises.
_NOT_IN_REPERTOIRE: Final = frozenset({"22021", "22P05"})
_TEXT_REMEDY: Final = (
    "a text has the character U+0000, or bytes that are not UTF-8: find the value in PostgreSQL's log, and "
    "remove the character before the text is written"
)
_BROKEN: Final = (
    OSError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
)


class DatabaseError(RelayboxError):
    """Base class of the errors of PostgreSQL."""

    error_code = "DATABASE_ERROR"


class DatabaseUnavailable(DatabaseError):
    """Raised when PostgreSQL cannot be reached or rejects writes, or when a connection breaks; retry later.

    The statement or COMMIT that was running may have taken effect or not.
    """

    error_code = "DATABASE_UNAVAILABLE"


class DatabaseBusy(DatabaseError):
    """Raised when a lock or connection is not granted in time, or a statement takes too long.

    Also raised when the server lacks memory, disk space or connections.
    """

    error_code = "DATABASE_BUSY"


class DatabaseRefused(DatabaseError):
    """Raised when PostgreSQL rejects a service's own statement for a reason that no other class covers.

    Usually a migration or a right is missing. The service logs the error and retries, because an operator can
    repair this while the service runs.
    """

    error_code = "DATABASE_REFUSED"


class RetryTransaction(DatabaseError):
    """Raised after a conflict with another transaction: repeat the whole transaction.

    The conflict is a serialization failure (SQLSTATE 40001), a deadlock (40P01), or a change by the other
    transaction that this one has not seen. :meth:`relaybox.db.Database.run_in_transaction` repeats the
    transaction. Code that manages its own transaction must roll back and begin again.
    """

    error_code = "RETRY_TRANSACTION"


class TransactionAborted(DatabaseError):
    """Raised when a transaction is continued or committed after one of its statements has failed.

    PostgreSQL rolls back such a transaction at COMMIT without an error, so code that catches the error of a
    statement would assume that its writes are committed. Use a savepoint (``begin_nested``) for a
    statement that may fail.
    """

    error_code = "TRANSACTION_ABORTED"

    def __init__(self) -> None:
        super().__init__(
            "nothing was committed, because an earlier statement of the transaction had failed; "
            "use a savepoint for a statement that may fail: async with session.begin_nested()"
        )


def unreachable(address: str, error: OSError) -> DatabaseUnavailable:
    """Return the error for a failed connection: the address, the reason, and the settings to check."""
    reason, remedy = _reason_and_remedy(error)
    return DatabaseUnavailable(f"PostgreSQL cannot be reached at {address}: {reason}; {remedy}")


def connection_error(address: str, error: Exception) -> DatabaseError:
    """Map *error*, raised while connecting to *address*, to an error of this package."""
    state = sqlstate_of(error)
    if isinstance(error, OSError) and state is None:
        return unreachable(address, error)
    if isinstance(error, asyncpg.TargetServerAttributeNotMatched):
        return DatabaseUnavailable(
            f"PostgreSQL at {address} is read-only or a standby; check POSTGRES_HOST, or set "
            "POSTGRES_TARGET_SESSION_ATTRS to any to use it anyway"
        )
    if parameter := _STARTUP_PARAMETER.search(str(error)):
        return DatabaseUnavailable(
            f"the server at {address} rejects the startup parameter {parameter[1]}, as PgBouncer does; "
            "set POSTGRES_POOLER to its pool_mode, session or transaction"
        )
    if state in _UNAVAILABLE:
        return DatabaseUnavailable(
            f"PostgreSQL at {address} accepts no connections ({state}): {error}; check the server"
        )
    return _translate(error) or DatabaseUnavailable(
        f"PostgreSQL at {address} rejects the connection ({state} {type(error).__name__}); check its log"
    )


def is_server_away(error: Exception) -> bool:
    """Return whether to try the next server of POSTGRES_HOST after *error*."""
    if _STARTUP_PARAMETER.search(str(error)):
        return False
    unusable = isinstance(error, OSError | asyncpg.TargetServerAttributeNotMatched)
    return unusable or sqlstate_of(error) in _UNAVAILABLE


def _reason_and_remedy(error: OSError) -> tuple[str, str]:
    """Return why a connection failed, and what to check."""
    if isinstance(error, ssl.SSLCertVerificationError):
        wrong_name = error.verify_code in _NAME_MISMATCH
        remedy = "POSTGRES_HOST" if wrong_name else "POSTGRES_SSL_CA_FILE"
        return (
            f"the server's certificate is not accepted: {error.verify_message}",
            f"check {remedy} and the certificate",
        )
    if isinstance(error, ssl.SSLError):
        # errno is a number of OpenSSL here, not of the operating system.
        return (
            f"TLS fails: {error.reason or error.strerror or error}",
            "check POSTGRES_SSL_MODE, POSTGRES_SSL_CERT_FILE and the server",
        )
    # For a refused connection, asyncpg's error has a tuple with the address as errno.
    known = error.errno is not None and error.errno > 0
    reason = os.strerror(error.errno or 0) if known else error.strerror or str(error) or "no response in time"
    if not known and "SSL" in reason:
        return "the server does not support TLS", "enable ssl on the server, or check POSTGRES_SSL_MODE"
    return reason, "check POSTGRES_HOST, POSTGRES_PORT and the server"


TRANSIENT_ERRORS: Final = (DatabaseUnavailable, DatabaseBusy, RetryTransaction)
"""Errors after which a repetition may succeed: the failed statement is not their cause."""


def sqlstate_of(error: BaseException) -> str | None:
    """Return the SQLSTATE of *error* or of the asyncpg error that SQLAlchemy wrapped; None if it has none."""
    if isinstance(error, sqlalchemy.exc.DBAPIError):
        return getattr(error.orig, "sqlstate", None)
    return getattr(error, "sqlstate", None)


def constraint_of(error: BaseException) -> str | None:
    """Return the name of the constraint that *error* reports as violated; None if it reports none.

    *error* is an error of asyncpg, or of SQLAlchemy with an error of asyncpg as its cause.
    """
    return getattr(_server_error(error), "constraint_name", None)


@contextmanager
def map_database_errors() -> Generator[None]:
    """Map errors of asyncpg and SQLAlchemy in the ``with`` block to errors of this package.

    Rejected data and violated constraints are not mapped, because the caller's statement causes them. An
    ``OSError`` is not mapped either, because in a transaction the caller's code is the likelier cause.

    Raises:
        DatabaseUnavailable, DatabaseBusy, RetryTransaction, TransactionAborted: See the classes.
    """
    try:
        yield
    except _DRIVER_ERRORS as error:
        known = _translate(error)
        if known is None:
            raise
        raise known from error


@contextmanager
def map_service_errors() -> Generator[None]:
    """Map every error of PostgreSQL in the ``with`` block, for the statements in the loop of a service.

    An error of PostgreSQL must never end such a loop. So an error that :func:`map_database_errors` does not
    map becomes a :class:`DatabaseRefused`. The loop logs this error and retries. Other code uses
    :func:`map_database_errors`.

    Raises:
        DatabaseRefused: An SQLSTATE that :func:`map_database_errors` does not map.
        DatabaseUnavailable, DatabaseBusy, RetryTransaction, TransactionAborted: See the classes.
    """
    try:
        with map_database_errors():
            yield
    except (asyncpg.PostgresError, sqlalchemy.exc.DBAPIError) as error:
        cause, state = _server_error(error), sqlstate_of(error)
        # This message has the name of the table. Messages of other SQLSTATEs may contain personal data.
        message = f": {getattr(cause, 'message', '')}" if state == INSUFFICIENT_PRIVILEGE else ""
        remedy = _TEXT_REMEDY if state in _NOT_IN_REPERTOIRE else _REFUSED_REMEDY
        raise DatabaseRefused(
            f"PostgreSQL rejects a statement of this service ({state} {type(cause).__name__}{message}); "
            f"{remedy}"
        ) from error


def is_read_only(error: BaseException) -> bool:
    """Return whether *error* means that the server rejects writes, for example as a standby."""
    state = sqlstate_of(error)
    raised_by = getattr(_server_error(error), "server_source_filename", None)
    return state == _READ_ONLY or (state == _NOT_READY and raised_by == _LOG_FUNCTIONS)


def _server_error(error: BaseException) -> BaseException:
    """Return the asyncpg error that SQLAlchemy wrapped; *error* itself if there is none."""
    cause: BaseException | None = error.orig if isinstance(error, sqlalchemy.exc.DBAPIError) else error
    while cause is not None and not isinstance(cause, asyncpg.PostgresError):
        cause = cause.__cause__
    return cause or error


def _translate(error: Exception) -> DatabaseError | None:
    """Return the error of this package for *error*; None if the caller's statement causes *error*."""
    state = sqlstate_of(error)
    if is_read_only(error):
        return DatabaseUnavailable(READ_ONLY_MESSAGE)
    if state in _SERIALIZATION:
        return RetryTransaction(
            f"PostgreSQL rolled back the transaction after a conflict ({state}); repeat the transaction"
        )
    if state == _ABORTED:
        return TransactionAborted()
    if state is not None and (cause := _BUSY.get(state)):
        return DatabaseBusy(f"PostgreSQL is too busy ({state}): {cause}; retry later")
    if isinstance(error, sqlalchemy.exc.TimeoutError):
        return DatabaseBusy(
            "no database connection became free in time; raise POSTGRES_POOL_SIZE or lower the load"
        )
    if state in _STATEMENT_NAMES:
        return DatabaseUnavailable(
            f"a prepared statement is missing or exists already ({state}), as behind a pooler that changes "
            "the server connection; set POSTGRES_POOLER to the pooler's pool_mode"
        )
    if state is not None and (remedy := _REMEDIES.get(state)):
        return DatabaseUnavailable(f"PostgreSQL rejects the connection ({state}); check {remedy}")
    wrapped = error.orig if isinstance(error, sqlalchemy.exc.DBAPIError) else None
    broken = any(isinstance(cause, _BROKEN) for cause in (error, wrapped, wrapped and wrapped.__cause__))
    if state in _UNAVAILABLE or broken or isinstance(error, sqlalchemy.exc.InterfaceError):
        return DatabaseUnavailable(UNREACHABLE_MESSAGE)
    return None
