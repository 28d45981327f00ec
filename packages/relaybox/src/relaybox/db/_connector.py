"""One connection of the driver: limits on everything, TLS as the settings want it, nothing from HOME."""

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
#: Prepared statements that a connection keeps; the driver's own default.
_STATEMENTS_MAX: Final = 100
#: How fast the server notices that a client died while its statement runs.
_CLIENT_CHECK_MS: Final = 500
#: Above the server's own statement_timeout: only a server that has fallen silent takes longer.
_SILENCE_S: Final = 5.0


class _Connection(asyncpg.Connection):
    """The driver's connection; a server that has fallen silent costs it, not the waiting of whoever asked."""

    #: None waits for ever, as the server's statement_timeout of 0 does.
    response_timeout_s: float | None = None
    #: Called when the server turns out to be read-only.
    on_read_only: Callable[[], None] | None = None
    #: The value of the connector's counter when this connection was made.
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

    async def _await_response(self, answer: Awaitable[T]) -> T:
        try:
            # Not the driver's own time-out: that begins only after a cancelled statement before has ended.
            async with asyncio.timeout(self.response_timeout_s):
                return await answer
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
    """A connection through a pooler that may lend another server connection for each transaction."""

    async def prepare(self, query: str, **options: Any) -> Any:
        """Prepare *query* without a name; the driver parses it again with each execution."""
        driver: Any = super()
        return await driver.prepare(query, **{**options, "name": ""})


class Connector:
    """Makes the connections of one :class:`relaybox.db.Database` and knows which of them are still of use."""

    def __init__(self, settings: PostgresSettings, application_name: str) -> None:
        self._settings = settings
        self._application_name = application_name
        self._generation = 0
        #: The server that accepted the last connection: it is asked first.
        self._first = 0

    async def connect(self) -> Any:
        """Connect to the first of the servers that is as the settings want it.

        Each gets ``connect_timeout_s``. Certificates are read each time, so that renewed ones count at once.

        Raises:
            DatabaseUnavailable: no server can be used, or a certificate or key cannot; the message says why.
            DatabaseBusy: the server has no room for another connection.
        """
        generation = self._generation
        connection = await self._connect_to_any()
        timeout_ms = self._settings.statement_timeout_ms
        connection.response_timeout_s = timeout_ms / 1_000 + _SILENCE_S if timeout_ms else None
        connection.generation = generation
        connection.on_read_only = self.invalidate_connections
        return connection

    def invalidate_connections(self) -> None:
        """Regard every connection made so far as unusable: a new one may reach the new primary."""
        self._generation += 1

    def is_usable(self, connection: _Connection) -> bool:
        """Whether *connection* is open and its server was not found read-only since it was made."""
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
    """Connect to one server; the driver's own way to TLS would look for certificates in HOME."""
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
    """Await a connection to *url* that is being made; here, and only here, an ``OSError`` is PostgreSQL's.

    Raises:
        DatabaseUnavailable: nobody answered, or the server is not who it should be.
    """
    try:
        return await connecting
    except OSError as error:  # TimeoutError and ssl.SSLError are
        raise unreachable(f"{url.host}:{url.port}", error) from error


async def _attempt(
    settings: PostgresSettings,
    address: tuple[str, int],
    application_name: str,
    *,
    tls: ssl.SSLContext | None,
) -> Any:
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
            # What a server connection knows by name, the next one does not.
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
    """What is in force on every connection (G69)."""
    return {
        # This schema alone: a missing table must not be found among an application's own.
        "search_path": settings.schema_name,
        "lock_timeout": str(settings.lock_timeout_ms),
        "statement_timeout": str(settings.statement_timeout_ms),
        "idle_in_transaction_session_timeout": str(settings.idle_in_transaction_timeout_ms),
        "client_connection_check_interval": str(_CLIENT_CHECK_MS),
        # JIT never pays for statements this short, and its first plan costs 100 ms.
        "jit": "off",
    }


async def _require_limits(connection: Any, settings: PostgresSettings, limits: dict[str, str]) -> None:
    """Refuse server connections without the limits: whatever was set here would be another client's next.

    Raises:
        DatabaseUnavailable: one of *limits* is not in force; the message has the statement that sets it.
    """
    rows = await connection.fetch(_SQL["fetch_limits"], list(limits))
    found = {row["name"]: row["setting"] for row in rows}
    if wrong := [name for name in limits if found.get(name) != limits[name]]:
        told = ", ".join(f"{name} is {found.get(name)} instead of {limits[name]}" for name in wrong)
        remedy = " ".join(
            f'ALTER ROLE "{settings.user}" IN DATABASE "{settings.db}" SET {name} = {limits[name]};'
            for name in wrong
        )
        raise DatabaseUnavailable(
            f"limits are not in force behind the pooler ({told}); run this and RECONNECT the pooler: {remedy}"
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
            # Without a password OpenSSL would ask for that of an encrypted key, on the terminal.
            context.load_cert_chain(settings.ssl_cert_file, settings.ssl_key_file, password="")
    return context


@contextmanager
def _named(setting: str, file: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise DatabaseUnavailable(f"{setting} cannot be used: {file}: {error.strerror or error}") from error


def _is_about_tls(error: Exception) -> bool:
    """Whether another attempt without TLS may end otherwise: an answer came, and it was no to that."""
    if isinstance(error, ssl.SSLError) or sqlstate_of(error) == INVALID_AUTHORIZATION:
        return True
    # The driver's words for a server without TLS; what the operating system says has a number.
    return isinstance(error, ConnectionError) and error.errno is None
