"""Open asyncpg connections with the limits and TLS of the settings, without certificates from HOME."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import asyncpg
from sqlalchemy import URL

from relaybox.db._errors import (
    INVALID_AUTHORIZATION,
    UNREACHABLE_MESSAGE,
    DatabaseError,
    DatabaseUnavailable,
    TransactionAborted,
    connection_error,
    is_read_only,
    is_server_away,
    sqlstate_of,
    unreachable,
)
from relaybox.db._queries import load_queries
from relaybox.settings import PostgresSettings

__all__ = ("Connector", "await_connection")

T = TypeVar("T")
_SQL: Final = load_queries(__package__ or "relaybox.db", "connections.sql")
#: Prepared statements that a connection caches; asyncpg's default.
_STATEMENTS_MAX: Final = 100
#: Interval at which the server checks, during a statement, whether the client still exists.
_CLIENT_CHECK_MS: Final = 500
#: Time that a response may take beyond statement_timeout; only a server that does not respond takes longer.
_RESPONSE_MARGIN_S: Final = 5.0


class _Connection(asyncpg.Connection):
    """A connection of asyncpg that closes itself if a response takes too long or the server is read-only."""

    #: Time limit of a response; None: no limit, as with a statement_timeout of 0.
    response_timeout_s: float | None = None
    #: Called when a statement fails because the server is read-only.
    on_read_only: Callable[[], None] | None = None
    #: Number of calls of :meth:`Connector.invalidate_connections` before this connection was opened.
    generation: int = 0

    async def fetch(self, query: str, *args: Any, **options: Any) -> list[Any]:
        driver: Any = super()
        return await self._await_response(driver.fetch(query, *args, **options))

    async def execute(self, query: str, *args: Any, **options: Any) -> str:
        driver: Any = super()
        done: str = await self._await_response(driver.execute(query, *args, **options))
        if done == "ROLLBACK" and query.startswith("COMMIT"):
            raise TransactionAborted
        return done

    async def _await_response(self, response: Awaitable[T]) -> T:
        try:
            # asyncpg's own timeout would begin only after an earlier, cancelled statement has ended.
            async with asyncio.timeout(self.response_timeout_s):
                return await response
        except TimeoutError as error:
            self.terminate()
            raise DatabaseUnavailable(UNREACHABLE_MESSAGE) from error
        except asyncpg.PostgresError as error:
            if is_read_only(error):
                self.terminate()
                if self.on_read_only is not None:
                    self.on_read_only()
            raise


class _UnnamedConnection(_Connection):
    """A connection through a pooler in transaction mode, without named prepared statements."""

    async def prepare(self, query: str, **options: Any) -> Any:
        """Prepare *query* without a name, because a named statement exists on one server connection only."""
        driver: Any = super()
        return await driver.prepare(query, **{**options, "name": ""})


class Connector:
    """Open the connections of one :class:`relaybox.db.Database`, and invalidate them after a failover."""

    def __init__(self, settings: PostgresSettings, application_name: str) -> None:
        self._settings = settings
        self._application_name = application_name
        self._generation = 0
        #: Index in ``settings.addresses`` of the server that accepted the last connection; tried first.
        self._first = 0

    async def connect(self) -> Any:
        """Connect to a server of POSTGRES_HOST that has the properties in POSTGRES_TARGET_SESSION_ATTRS.

        The servers are tried one after the other, first the one that accepted the last connection. If a
        server is unreachable or lacks the properties, the next one is tried; another error, such as a wrong
        password, is raised at once. An attempt takes at most ``connect_timeout_s``. Certificate files are
        read for each connection, so that renewed certificates are used.

        Raises:
            DatabaseUnavailable: No server is usable, or a server rejects the connection, or a certificate or
                key is unusable; see the message.
            DatabaseBusy: The server accepts no more connections.
        """
        generation = self._generation
        connection = await self._connect_to_any()
        timeout_ms = self._settings.statement_timeout_ms
        connection.response_timeout_s = timeout_ms / 1_000 + _RESPONSE_MARGIN_S if timeout_ms else None
        connection.generation = generation
        connection.on_read_only = self.invalidate_connections
        return connection

    def invalidate_connections(self) -> None:
        """Mark all open connections as unusable: the pool replaces each of them before its next use.

        After a failover, the new connections can reach the new primary.
        """
        self._generation += 1

    def is_usable(self, connection: _Connection) -> bool:
        """Return whether *connection* is open and newer than the last :meth:`invalidate_connections`."""
        return not connection.is_closed() and connection.generation == self._generation

    async def _connect_to_any(self) -> Any:
        addresses = self._settings.addresses
        failures: list[DatabaseError] = []
        for index in (*range(self._first, len(addresses)), *range(self._first)):
            try:
                connection = await _connect(self._settings, addresses[index], self._application_name)
            except (OSError, asyncpg.PostgresError, asyncpg.InternalClientError) as error:
                failure = connection_error(":".join(map(str, addresses[index])), error)
                if not is_server_away(error):
                    raise failure from error
                failure.__cause__ = error
                failures.append(failure)
            else:
                self._first = index
                return connection
        if len(failures) == 1:
            raise failures[0]
        raise DatabaseUnavailable(
            "no server of POSTGRES_HOST can be used: " + "; ".join(map(str, failures))
        ) from failures[-1]


async def _connect(settings: PostgresSettings, address: tuple[str, int], application_name: str) -> Any:
    """Connect to one server.

    The function creates the TLS context, because asyncpg would read certificates from the directory HOME.
    With ``ssl_mode`` ``prefer``, it connects a second time without TLS if the server rejects TLS.
    """
    if settings.ssl_mode == "disable":
        return await _attempt(settings, address, application_name, tls=None)
    tls = _tls(settings)
    try:
        return await _attempt(settings, address, application_name, tls=tls)
    except (OSError, asyncpg.PostgresError) as error:
        if settings.ssl_mode != "prefer" or not _is_about_tls(error):
            raise
    return await _attempt(settings, address, application_name, tls=None)


async def await_connection(connecting: Awaitable[T], url: URL) -> T:
    """Return the result of *connecting*, and map an ``OSError`` to an error that names the address of *url*.

    :func:`map_database_errors` maps no ``OSError``, because the caller's own code may raise one.

    Raises:
        DatabaseUnavailable: No server responded, or the server's certificate is not accepted.
    """
    try:
        return await connecting
    except OSError as error:  # includes TimeoutError and ssl.SSLError
        raise unreachable(f"{url.host}:{url.port}", error) from error


async def _attempt(
    settings: PostgresSettings,
    address: tuple[str, int],
    application_name: str,
    *,
    tls: ssl.SSLContext | None,
) -> Any:
    """Connect once, with TLS unless *tls* is None, and set or check the limits (:func:`_limits`)."""
    limits = _limits(settings)
    driver: Any = asyncpg
    async with asyncio.timeout(settings.connect_timeout_s):
        connection = await driver.connect(
            host=address[0],
            port=address[1],
            user=settings.user,
            password=settings.password.get_secret_value() or None,
            database=settings.db,
            ssl=tls or False,
            connection_class=_UnnamedConnection if settings.pooler == "transaction" else _Connection,
            target_session_attrs=settings.target_session_attrs,
            # A cached statement is a named one, which exists on one server connection only.
            statement_cache_size=0 if settings.pooler == "transaction" else _STATEMENTS_MAX,
            server_settings={
                "application_name": application_name,
                **(limits if settings.pooler == "none" else {}),
            },
        )
        try:
            if settings.pooler == "session":
                await connection.fetch(_SQL["set_limits"], list(limits), list(limits.values()))
            elif settings.pooler == "transaction":
                await _require_limits(connection, settings, limits)
        except BaseException:
            connection.terminate()
            raise
    return connection


def _limits(settings: PostgresSettings) -> dict[str, str]:
    """Return the server settings of every connection, as text; times in milliseconds (G69)."""
    return {
        # Only this schema, so that PostgreSQL does not find a missing table in another schema.
        "search_path": settings.schema_name,
        "lock_timeout": str(settings.lock_timeout_ms),
        "statement_timeout": str(settings.statement_timeout_ms),
        "idle_in_transaction_session_timeout": str(settings.idle_in_transaction_timeout_ms),
        "client_connection_check_interval": str(_CLIENT_CHECK_MS),
        # JIT does not help short statements, and its first plan costs 100 ms.
        "jit": "off",
    }


async def _require_limits(connection: Any, settings: PostgresSettings, limits: dict[str, str]) -> None:
    """Check that the connection behind the pooler has *limits*.

    Relaybox cannot set the limits itself, because a pooler in transaction mode gives the server connection to
    other clients too.

    Raises:
        DatabaseUnavailable: One of *limits* is not set; the message has the statement that sets it.
    """
    rows = await connection.fetch(_SQL["fetch_limits"], list(limits))
    found = {row["name"]: row["setting"] for row in rows}
    if wrong := [name for name in limits if found.get(name) != limits[name]]:
        differences = ", ".join(f"{name} is {found.get(name)} instead of {limits[name]}" for name in wrong)
        remedy = " ".join(
            f'ALTER ROLE "{settings.user}" IN DATABASE "{settings.db}" SET {name} = {limits[name]};'
            for name in wrong
        )
        raise DatabaseUnavailable(
            f"limits are not set behind the pooler ({differences}); "
            f"run this and RECONNECT the pooler: {remedy}"
        )


def _tls(settings: PostgresSettings) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = settings.ssl_mode == "verify-full"
    if settings.ssl_mode in ("prefer", "require"):
        context.verify_mode = ssl.CERT_NONE
    elif settings.ssl_ca_file is None:
        context.load_default_certs()
    else:
        with _named("POSTGRES_SSL_CA_FILE", settings.ssl_ca_file):
            context.load_verify_locations(settings.ssl_ca_file)
    if settings.ssl_cert_file is not None:
        with _named("POSTGRES_SSL_CERT_FILE with POSTGRES_SSL_KEY_FILE", settings.ssl_cert_file):
            # Without a password argument, OpenSSL would prompt for the password of an encrypted key.
            context.load_cert_chain(settings.ssl_cert_file, settings.ssl_key_file, password="")
    return context


@contextmanager
def _named(setting: str, file: Path) -> Generator[None]:
    """Map an ``OSError`` in the ``with`` block, which reads *file*, to an error that names *setting*."""
    try:
        yield
    except OSError as error:
        raise DatabaseUnavailable(
            f"{setting} cannot be used: {file}: {error.strerror or error}; check path, rights and content"
        ) from error


def _is_about_tls(error: Exception) -> bool:
    """Return whether *error* means that the server rejects TLS; an attempt without TLS may then succeed."""
    if isinstance(error, ssl.SSLError) or sqlstate_of(error) == INVALID_AUTHORIZATION:
        return True
    # asyncpg raises a ConnectionError without errno for a server without TLS; the system's errors have one.
    return isinstance(error, ConnectionError) and error.errno is None
