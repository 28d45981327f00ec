"""The connections of one process to PostgreSQL."""

import asyncio
import random
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext, suppress
from functools import cached_property, partial
from typing import Any, Final, Literal, Protocol, TypeVar

from sqlalchemy import URL, Connection, ExceptionContext, event, exc
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine  # noqa: TID251
from sqlalchemy.orm import Session

from relaybox.db._connector import Connector, await_connection
from relaybox.db._errors import RetryTransaction, is_read_only, map_database_errors, map_service_errors
from relaybox.settings import PostgresSettings, load_settings

__all__ = (
    "Database",
    "DedicatedConnection",
    "Executor",
    "Isolation",
    "executor_of",
    "refuse_commits",
    "transaction_was_ended",
)

T = TypeVar("T")
#: Isolation levels of PostgreSQL.
Isolation = Literal["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"]

_ATTEMPTS_MAX: Final = 10
_BACKOFF_S: Final = 0.005
_BACKOFF_S_MAX: Final = 0.25
_CLOSE_S: Final = 2.0
#: White space or a comment, not a nested one: a COMMIT after a nested comment is not recognised.
_GAP: Final = r"(?:\s|/\*.*?\*/|--[^\n\r]*[\n\r])"
#: Matches a statement that commits, or one with AND CHAIN. AND CHAIN begins the next transaction at once, so
#: the server's response does not show that the first one ended.
_COMMITTING: Final = re.compile(
    rf"(?>(?:;|{_GAP})*)"
    rf"((COMMIT|END|PREPARE{_GAP}+TRANSACTION)\b"
    rf"|(ROLLBACK|ABORT)\b(?>(?:WORK\b|TRANSACTION\b|{_GAP})*)AND{_GAP}+CHAIN\b)",
    re.IGNORECASE | re.DOTALL,
)
#: Key in ``Session.info`` of the function that returns the error for a commit; None permits commits.
_REFUSAL: Final = "relaybox.commit_refusal"
#: Key in the ``info`` of a connection: ``Session.info`` of the session that uses the connection.
_SESSION_INFO: Final = "relaybox.session_info"


class Executor(Protocol):
    """Interface to execute a statement with parameters ``$1``, …: an asyncpg connection or a session."""

    async def fetch(self, query: str, /, *args: Any) -> Sequence[Mapping[str, Any]]:
        """Execute *query* with the parameters *args*, and return its rows."""
        ...


class DedicatedConnection(Executor, Protocol):
    """A connection of asyncpg outside the pool, for example for LISTEN."""

    async def add_listener(self, channel: str, callback: Callable[[Any, int, str, Any], None]) -> None:
        """LISTEN on *channel*; call *callback* with connection, sender's process id, channel, payload."""
        ...

    def add_termination_listener(self, callback: Callable[[Any], None]) -> None:
        """Call *callback* when the connection has ended."""
        ...

    def terminate(self) -> None:
        """Close the connection at once, without a message to the server."""
        ...


class _SessionExecutor:
    def __init__(self, db: AsyncSession) -> None:
        self._db = db

    async def fetch(self, query: str, /, *args: Any) -> Sequence[Mapping[str, Any]]:
        # One greenlet switch for statement and rows; AsyncConnection would need two, and a proxy for each.
        return await self._db.run_sync(_fetch, query, args)


def _fetch(db: Session, query: str, args: tuple[Any, ...]) -> Sequence[Mapping[str, Any]]:
    result = db.connection().exec_driver_sql(query, args)
    return [dict(zip(result.keys(), row, strict=True)) for row in result] if result.returns_rows else []


def executor_of(db: AsyncSession) -> Executor:
    """Return an executor that executes the library's SQL in the transaction of *db*."""
    return _SessionExecutor(db)


class _Session(Session):
    """The class of the library's sessions; a listener per session would cost 12 µs per transaction."""


@event.listens_for(_Session, "after_begin")
def _note_session(session: Session, _transaction: Any, connection: Connection) -> None:
    connection.info[_SESSION_INFO] = session.info


def _raise_refusal(connection_info: Mapping[str, Any]) -> None:
    refusal = connection_info.get(_SESSION_INFO, {}).get(_REFUSAL)
    if refusal is not None:
        raise refusal()


def refuse_commits(db: AsyncSession, error: Callable[[], Exception] | None) -> None:
    """Make a commit of *db* raise an error before it takes effect; savepoints can still be committed.

    Args:
        db: A session of :class:`Database` that is passed to a function of the application. The function must
            not end the session's transaction.
        error: Function that returns the error to raise. None permits commits again.
    """
    db.info[_REFUSAL] = error


def transaction_was_ended(db: AsyncSession) -> bool:
    """Return whether a statement such as ROLLBACK ended the transaction of *db* without SQLAlchemy noticing.

    Takes no round trip, because each response of PostgreSQL contains the state of the transaction. Returns
    False if the connection is broken. A statement with AND CHAIN would not be noticed, because it begins the
    next transaction at once. So sessions of :class:`Database` refuse such statements, and COMMIT.
    """
    connection = db.sync_session.connection()
    if connection.closed or connection.invalidated:
        return False
    driver: Any = connection.connection.driver_connection
    return not driver.is_closed() and not driver.is_in_transaction()


class Database:
    """The connections of one process: SQLAlchemy sessions, and connections of asyncpg where speed matters.

    Both use one pool. No connection is opened before the first use, so a process can start while PostgreSQL
    is unavailable. A closed connection is replaced at checkout. Others are not pinged: a round trip per
    checkout would double the cost of a command, which has one statement.
    """

    def __init__(
        self,
        settings: PostgresSettings | None = None,
        *,
        application_name: str = "relaybox",
        settings_class: type[PostgresSettings] = PostgresSettings,
    ) -> None:
        """Create the object without connecting.

        Args:
            settings: None: the settings are read from the environment at the first use of the object, and
                any method may raise ``SettingsError``.
            application_name: Name of the process in ``pg_stat_activity``.
            settings_class: Class that reads the settings from the environment.
        """
        self._given_settings = settings
        self._settings_class = settings_class
        self._application_name = application_name

    @cached_property
    def settings(self) -> PostgresSettings:
        """Address of PostgreSQL, role and limits of the connections."""
        return self._given_settings or load_settings(self._settings_class)

    @cached_property
    def engine(self) -> AsyncEngine:
        """Engine of SQLAlchemy, which has the pool."""
        return _create_engine(self.settings, self._connector)

    @cached_property
    def _connector(self) -> Connector:
        return Connector(self.settings, self._application_name)

    @cached_property
    def sessions(self) -> async_sessionmaker[AsyncSession]:
        """Factory of sessions that use the pool."""
        return async_sessionmaker(self.engine, expire_on_commit=False, sync_session_class=_Session)

    @cached_property
    def _direct_connector(self) -> Connector:
        return Connector(self.settings.direct(), self._application_name)

    def __repr__(self) -> str:
        if "engine" not in self.__dict__:
            return "<Database [not connected yet]>"
        where = f"{self.settings.user}@{self.settings.address}/{self.settings.db}"
        return f"<Database {where} [{self.engine.pool.status()}]>"

    @asynccontextmanager
    async def connection(self) -> AsyncGenerator[Executor]:
        """Yield a pooled connection of asyncpg, on which each statement is one transaction.

        Raises:
            DatabaseUnavailable: PostgreSQL cannot be reached, or does not respond in time.
            DatabaseBusy: No connection or lock was granted in time, or the server cancelled the statement.
            RetryTransaction: A serialization failure or a deadlock (SQLSTATE 40001 or 40P01).
        """
        with map_database_errors():
            connection = await await_connection(self.engine.connect().start(), self.engine.url)
            try:
                raw = await connection.get_raw_connection()
                assert raw.driver_connection is not None
                yield raw.driver_connection
            finally:
                await connection.close()

    @asynccontextmanager
    async def service_connection(self) -> AsyncGenerator[Executor]:
        """Yield a connection as :meth:`connection` does, for statements in the loop of a service.

        Raises:
            DatabaseRefused: Any SQLSTATE that :meth:`connection` does not map, for example a missing right.
            DatabaseUnavailable, DatabaseBusy, RetryTransaction: as :meth:`connection`.
        """
        with map_service_errors():
            async with self.connection() as connection:
                yield connection

    def replace_connections(self) -> None:
        """Replace each pooled connection before its next use; call this when the primary may have changed."""
        self._connector.invalidate_connections()

    async def begin(self) -> AsyncSession:
        """Begin a READ COMMITTED transaction and return its session, which the caller commits and closes.

        Raises:
            DatabaseUnavailable: PostgreSQL cannot be reached.
            DatabaseBusy: No connection became free in time.
        """
        db = self.sessions()
        try:
            with map_database_errors():
                await self._connect(db, "READ COMMITTED")
        except BaseException:
            await db.close()
            raise
        return db

    async def run_in_transaction(
        self,
        work: Callable[[AsyncSession], Awaitable[T]],
        *,
        isolation: Isolation = "REPEATABLE READ",
        attempts_max: int = _ATTEMPTS_MAX,
    ) -> T:
        """Call *work* in a new transaction, and return its result after the COMMIT.

        After a conflict (SQLSTATE 40001 or 40P01, :class:`RetryTransaction`) the transaction is rolled back,
        and after a random pause of at most 0.25 s *work* is called again in a new one.

        Args:
            work: Called with the session. It may be called several times, so all its effects must be in the
                transaction.
            isolation: Isolation level of the transaction.
            attempts_max: Maximum number of calls, at least 1.

        Raises:
            RetryTransaction: Each of *attempts_max* attempts had a conflict.
            DatabaseUnavailable: PostgreSQL cannot be reached. A COMMIT that was running may have taken effect
                or not: send the command again with the same idempotency key (G05).
            DatabaseBusy: No connection or lock was granted in time, or the server cancelled a statement.
            TransactionAborted: *work* continued after a statement had failed; nothing was committed.
            ValueError: *attempts_max* is below 1.
        """
        for attempt in range(1, attempts_max + 1):
            try:
                return await self._run_once(work, isolation)
            except RetryTransaction:
                if attempt == attempts_max:
                    raise
                ceiling = min(_BACKOFF_S * 2**attempt, _BACKOFF_S_MAX)
                await asyncio.sleep(random.uniform(0, ceiling))  # noqa: S311 - jitter, not a secret
        raise ValueError(f"attempts_max is {attempts_max}; it must be at least 1")

    async def _run_once(self, work: Callable[[AsyncSession], Awaitable[T]], isolation: Isolation) -> T:
        with map_database_errors():
            async with AsyncExitStack() as stack:
                db = self.sessions()
                stack.push_async_exit(partial(_close, db))
                await self._connect(db, isolation)
                result = await work(db)
                await db.commit()
                return result

    async def _connect(self, db: AsyncSession, isolation: Isolation) -> None:
        await await_connection(
            db.connection(execution_options={"isolation_level": isolation}), self.engine.url
        )

    async def dedicated(self) -> DedicatedConnection:
        """Open a connection outside the pool, for example for LISTEN; the caller closes the connection.

        If ``POSTGRES_DIRECT_HOST`` is set, connects to that host, bypassing the pooler.

        Raises:
            DatabaseUnavailable: PostgreSQL cannot be reached.
        """
        with map_database_errors():
            return await await_connection(self._direct_connector.connect(), self.engine.url)

    async def close(self) -> None:
        """Close the pooled connections; wait at most 2 s for a server that does not respond."""
        if "engine" not in self.__dict__:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                await self.engine.dispose()


async def _close(db: AsyncSession, failure: type[BaseException] | None, *_: object) -> None:
    """Close *db* after its work, which raised *failure*; None if the work succeeded.

    On a broken connection the rollback fails too. The error of the rollback must not replace *failure*.
    """
    with suppress(Exception) if failure else nullcontext():
        await asyncio.shield(asyncio.create_task(db.close()))


def _create_engine(settings: PostgresSettings, connector: Connector) -> AsyncEngine:
    # A named statement exists on one server connection only, and the pooler changes the server connection.
    unnamed = {"prepared_statement_cache_size": 0, "prepared_statement_name_func": str}
    options = unnamed if settings.pooler == "transaction" else {}

    def create() -> Any:
        # The engine's async_creator option would not pass these options to the dialect.
        driver: Any = engine.dialect.dbapi
        return driver.connect(async_creator_fn=connector.connect, **options)

    engine = create_async_engine(
        # Used in messages only; the connector has the complete settings.
        URL.create("postgresql+asyncpg", host=settings.host, port=settings.port, database=settings.db),
        creator=create,
        pool_size=settings.pool_size,
        max_overflow=0,
        pool_timeout=settings.connect_timeout_s,
        # Parameters may be personal data, which logged errors must not contain.
        hide_parameters=True,
    )
    event.listen(engine.sync_engine, "checkout", partial(_refuse_unusable, connector))
    event.listen(engine.sync_engine, "handle_error", _drop_read_only)
    # Events of the dialect, because a listener on the engine would cost three times as much per statement.
    for execution in ("do_execute", "do_executemany", "do_execute_no_params"):
        event.listen(engine.sync_engine, execution, _refuse_to_commit)
    # The dialect has no event for COMMIT. Each COMMIT calls do_commit, whether the session, one of its
    # transactions or its connection is committed; the release of a savepoint does not call it.
    engine.dialect.do_commit = partial(_commit_unless_refused, engine.dialect.do_commit)
    return engine


def _commit_unless_refused(commit: Callable[[Any], None], dbapi_connection: Any) -> None:
    _raise_refusal(dbapi_connection.info)
    commit(dbapi_connection)


def _refuse_unusable(connector: Connector, dbapi_connection: Any, _record: Any, _proxy: Any) -> None:
    """Make the pool replace a connection that is closed or was invalidated."""
    if not connector.is_usable(dbapi_connection.driver_connection):
        raise exc.DisconnectionError("the connection is closed or its server rejects writes; open another")


def _drop_read_only(context: ExceptionContext) -> None:
    """Invalidate all pooled connections after a read-only error, because all lead to the same server."""
    if is_read_only(context.original_exception):
        context.is_disconnect = True


def _refuse_to_commit(_cursor: Any, statement: str, *arguments: Any) -> None:
    """Refuse a statement that commits or has AND CHAIN: only the code that began a transaction may end it."""
    if _COMMITTING.match(statement):
        _raise_refusal(arguments[-1].root_connection.info)
        raise exc.InvalidRequestError(
            "COMMIT and AND CHAIN are refused as statements: only the code that began the transaction may "
            "end it; for a statement that may fail, use begin_nested()"
        )
