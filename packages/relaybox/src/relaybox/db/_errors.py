"""What can go wrong with PostgreSQL, in our words.

::

    RelayboxError
    └── DatabaseError
        ├── DatabaseUnavailable   no connection, it broke, or the server takes no writes
        ├── DatabaseBusy          a lock or a connection was not to be had in time
        ├── DatabaseRefused       a service's own statement was refused, for want of a migration or of rights
        ├── RetryTransaction      lost a race; the whole transaction may be run again
        └── TransactionAborted    it had failed before, and somebody wanted to commit it
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
#: OpenSSL's numbers for a name, and for an address, that the certificate does not have.
_ANOTHER_NAME: Final = frozenset({62, 64})
#: InternalClientError: the driver was told that its connection ends just when it wanted to use it.
_FOREIGN: Final = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    sqlalchemy.exc.SQLAlchemyError,
)
_ABORTED: Final = "25P02"
_SERIALIZATION: Final = frozenset({"40001", "40P01"})
#: lock_not_available, query_canceled, and the server's own limits (class 53).
_BUSY: Final = frozenset({"55P03", "57014", "53000", "53100", "53200", "53300", "53400"})
#: Connection exceptions (class 08; PgBouncer sends 08P01 for a server that it cannot reach), system
#: errors (class 58), shutdown, crash, start-up, database dropped, idle session ended.
_AWAY: Final = frozenset(
    {"08000", "08001", "08003", "08004", "08006", "08007", "08P01", "58000", "58030"}
    | {"57P01", "57P02", "57P03", "57P04", "57P05", "25P03"}
)
#: invalid_sql_statement_name, duplicate_prepared_statement: of what the driver has prepared itself.
_STATEMENT_NAMES: Final = frozenset({"26000", "42P05"})
_STARTUP_PARAMETER: Final = re.compile(r"unsupported startup parameter(?: in options)?: (\w+)")
#: read_only_sql_transaction: a standby, or a primary that was demoted.
_READ_ONLY: Final = "25006"
#: object_not_in_prerequisite_state has many reasons. A standby gives it for functions about
#: the write-ahead log: its message depends on lc_messages, the name of their source file does not.
_NOT_READY: Final = "55000"
_LOG_FUNCTIONS: Final = "xlogfuncs.c"
READ_ONLY_MESSAGE: Final = (
    "PostgreSQL is read-only (a standby, or default_transaction_read_only is on); "
    "check which server POSTGRES_HOST leads to"
)
#: insufficient_privilege.
INSUFFICIENT_PRIVILEGE: Final = "42501"
#: No such role, or none that may come in this way: unencrypted, or without a certificate.
INVALID_AUTHORIZATION: Final = "28000"
_CREDENTIALS: Final = "POSTGRES_USER, POSTGRES_PASSWORD and POSTGRES_DB"
_REMEDIES: Final = {
    INVALID_AUTHORIZATION: (
        "POSTGRES_USER, POSTGRES_SSL_MODE, POSTGRES_SSL_CERT_FILE and the server's pg_hba.conf"
    ),
    "28P01": _CREDENTIALS,  # a wrong password; an unknown role's is wrong too
    "3D000": _CREDENTIALS,  # no such database
}
_BROKEN: Final = (
    OSError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
)


class DatabaseError(RelayboxError):
    """Base of the errors of this package."""

    error_code = "DATABASE_ERROR"


class DatabaseUnavailable(DatabaseError):
    """Raised when PostgreSQL cannot be reached, takes no writes, or the connection broke; try again later.

    Whether a statement in flight took effect is unknown.
    """

    error_code = "DATABASE_UNAVAILABLE"


class DatabaseBusy(DatabaseError):
    """Raised when a lock, a connection or the end of a statement did not come within its limit."""

    error_code = "DATABASE_BUSY"


class DatabaseRefused(DatabaseError):
    """Raised when PostgreSQL refuses a service's own statement with an SQLSTATE that has no other class.

    A migration or a right is missing, as a rule. The service tries again, because an operator may repair
    that while it runs.
    """

    error_code = "DATABASE_REFUSED"


class RetryTransaction(DatabaseError):
    """Raised when a race was lost (40001, 40P01, a stale version): run the whole transaction again.

    :meth:`relaybox.db.Database.run_in_transaction` does so by itself; inside a transaction of
    one's own it means: roll back and start over.
    """

    error_code = "RETRY_TRANSACTION"


class TransactionAborted(DatabaseError):
    """Raised when a transaction goes on, or is committed, in which a statement has failed.

    PostgreSQL takes all of it back at COMMIT without a word: whoever catches the error of a statement and
    goes on would believe that it is written. Put one that may fail into a savepoint (``begin_nested``).
    """

    error_code = "TRANSACTION_ABORTED"

    def __init__(self) -> None:
        super().__init__(
            "nothing was committed, because a statement before had failed; "
            "put one that may fail into a savepoint: session.begin_nested()"
        )


def unreachable(address: str, error: OSError) -> DatabaseUnavailable:
    """The error for a connection that could not be made: where to, the true reason, and what to check."""
    reason, remedy = _reason_and_remedy(error)
    return DatabaseUnavailable(f"PostgreSQL cannot be reached at {address}: {reason}; {remedy}")


def connection_error(address: str, error: Exception) -> DatabaseError:
    """What *error*, met while connecting to *address*, means; a server's refusal is always one of ours."""
    state = sqlstate_of(error)
    if isinstance(error, OSError) and state is None:
        return unreachable(address, error)
    if isinstance(error, asyncpg.TargetServerAttributeNotMatched):
        return DatabaseUnavailable(
            f"PostgreSQL at {address} is read-only or a standby; check POSTGRES_HOST, or set "
            "POSTGRES_TARGET_SESSION_ATTRS to any to use it all the same"
        )
    if parameter := _STARTUP_PARAMETER.search(str(error)):
        return DatabaseUnavailable(
            f"the server at {address} refuses the startup parameter {parameter[1]}, as PgBouncer does; "
            "set POSTGRES_POOLER to its pool_mode, session or transaction"
        )
    if state in _AWAY:
        return DatabaseUnavailable(f"PostgreSQL at {address} takes no connections ({state}): {error}")
    return _translate(error) or DatabaseUnavailable(
        f"PostgreSQL at {address} refuses the connection ({state} {type(error).__name__}); check its log"
    )


def is_server_away(error: Exception) -> bool:
    """Whether another server of the list may do what this one, which failed with *error*, cannot."""
    if _STARTUP_PARAMETER.search(str(error)):
        return False
    other = isinstance(error, OSError | asyncpg.TargetServerAttributeNotMatched)
    return other or sqlstate_of(error) in _AWAY


def _reason_and_remedy(error: OSError) -> tuple[str, str]:
    if isinstance(error, ssl.SSLCertVerificationError):
        named_otherwise = error.verify_code in _ANOTHER_NAME
        remedy = "POSTGRES_HOST" if named_otherwise else "POSTGRES_SSL_CA_FILE"
        return (
            f"its certificate is not accepted: {error.verify_message}",
            f"check {remedy} and the server's certificate",
        )
    if isinstance(error, ssl.SSLError):
        # Its number is OpenSSL's and means nothing to the operating system.
        return (
            f"TLS fails: {error.reason or error.strerror or error}",
            "check POSTGRES_SSL_MODE, POSTGRES_SSL_CERT_FILE and the server",
        )
    # The driver's own words for a refused connection are a tuple with the address.
    known = error.errno is not None and error.errno > 0
    reason = os.strerror(error.errno or 0) if known else error.strerror or str(error) or "no answer in time"
    if not known and "SSL" in reason:
        return "it offers no TLS", "turn ssl on at the server, or check POSTGRES_SSL_MODE"
    return reason, "check POSTGRES_HOST, POSTGRES_PORT and the server"


TRANSIENT_ERRORS: Final = (DatabaseUnavailable, DatabaseBusy, RetryTransaction)
"""What passes by itself: PostgreSQL's trouble, and not the fault of the work that met it."""


def sqlstate_of(error: BaseException) -> str | None:
    """The five-character SQLSTATE behind *error*, through SQLAlchemy's wrapping; None without one."""
    if isinstance(error, sqlalchemy.exc.DBAPIError):
        return getattr(error.orig, "sqlstate", None)
    return getattr(error, "sqlstate", None)


def constraint_of(error: BaseException) -> str | None:
    """The name of the constraint that *error* tripped over, through SQLAlchemy's wrapping."""
    return getattr(_server_error(error), "constraint_name", None)


@contextmanager
def map_database_errors() -> Generator[None]:
    """Turn what drivers raise into this package's errors; everything else passes unchanged.

    So do the caller's own mistakes: data that PostgreSQL, or already the driver, refuses, and constraints.
    A bare ``OSError`` passes too: inside a transaction it is more likely the caller's own.
    """
    try:
        yield
    except _FOREIGN as error:
        known = _translate(error)
        if known is None:
            raise
        raise known from error


@contextmanager
def map_service_errors() -> Generator[None]:
    """Turn errors of a service's own statements into this package's, every SQLSTATE included.

    For loops of services only: no SQLSTATE may end a service, so what :func:`map_database_errors` lets pass
    is raised as :class:`DatabaseRefused`, which the loop logs and waits out. Python's own errors pass
    unchanged.
    """
    try:
        with map_database_errors():
            yield
    except (asyncpg.PostgresError, sqlalchemy.exc.DBAPIError) as error:
        cause, state = _server_error(error), sqlstate_of(error)
        # Which object it is about. Messages of other states may contain what a user wrote.
        message = f": {getattr(cause, 'message', '')}" if state == INSUFFICIENT_PRIVILEGE else ""
        raise DatabaseRefused(
            f"PostgreSQL refuses a statement of this service ({state} {type(cause).__name__}{message}); "
            "check its log, the migrations (relaybox migrate up) and the rights of POSTGRES_USER"
        ) from error


def is_read_only(error: BaseException) -> bool:
    """Whether *error* says that its server is a standby or takes no writes for another reason."""
    state = sqlstate_of(error)
    raised_by = getattr(_server_error(error), "server_source_filename", None)
    return state == _READ_ONLY or (state == _NOT_READY and raised_by == _LOG_FUNCTIONS)


def _server_error(error: BaseException) -> BaseException:
    """What the driver raised, through SQLAlchemy's wrapping; *error* itself if it was not the driver."""
    cause: BaseException | None = error.orig if isinstance(error, sqlalchemy.exc.DBAPIError) else error
    while cause is not None and not isinstance(cause, asyncpg.PostgresError):
        cause = cause.__cause__
    return cause or error


def _translate(error: Exception) -> DatabaseError | None:
    state = sqlstate_of(error)
    if is_read_only(error):
        return DatabaseUnavailable(READ_ONLY_MESSAGE)
    if state in _SERIALIZATION:
        return RetryTransaction(f"PostgreSQL refused the transaction ({state}); run it again")
    if state == _ABORTED:
        return TransactionAborted()
    if state in _BUSY:
        return DatabaseBusy(f"PostgreSQL is too busy ({state}); try again later")
    if isinstance(error, sqlalchemy.exc.TimeoutError):
        return DatabaseBusy(
            "no database connection became free in time; raise POSTGRES_POOL_SIZE or lower the load"
        )
    if state in _STATEMENT_NAMES:
        return DatabaseUnavailable(
            f"the server does not know its prepared statement ({state}), as behind a pooler that works by "
            "transaction; set POSTGRES_POOLER to its pool_mode"
        )
    if state is not None and (remedy := _REMEDIES.get(state)):
        return DatabaseUnavailable(f"PostgreSQL refuses the connection ({state}); check {remedy}")
    wrapped = error.orig if isinstance(error, sqlalchemy.exc.DBAPIError) else None
    broken = any(isinstance(one, _BROKEN) for one in (error, wrapped, wrapped and wrapped.__cause__))
    if state in _AWAY or broken or isinstance(error, sqlalchemy.exc.InterfaceError):
        return DatabaseUnavailable(UNREACHABLE_MESSAGE)
    return None
