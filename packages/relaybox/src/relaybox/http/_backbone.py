"""Create, start and stop the objects that all routes of an API process share."""

import asyncio
import gc
import signal
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import cached_property
from types import FrameType
from typing import Any, Final, Self

import structlog
from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from pydantic_settings import BaseSettings
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session, SessionTransaction

from relaybox.commands import Command, CommandRefused, CommandResult, CommandService, Domain
from relaybox.db import Database
from relaybox.errors import RelayboxError
from relaybox.flows import FlowExpiry
from relaybox.http._idempotent_request import ResponseReplaced
from relaybox.http._keyed_routes import check_keyed_routes
from relaybox.http._live import LiveStreams
from relaybox.http._tokens import SharedSecretVerifier, TokenVerifier
from relaybox.idempotency import Replay, Sweeper
from relaybox.outbox import Notifier, OutboxSettings
from relaybox.service import ServiceSettings
from relaybox.settings import (
    IdempotencySettings,
    JwtSettings,
    PostgresSettings,
    RetentionSettings,
    check_settings,
    load_settings,
)
from relaybox.telemetry import CommandMetrics, DatabaseMetrics, ensure_logging

__all__ = ("Backbone",)

#: Thresholds of ``gc.set_threshold`` while serving; Python's default is (700, 10, 10).
_GC_THRESHOLDS: Final = (10_000, 10, 10)
#: Maximum number of undeclared refusals about which a process logs a warning.
_UNDECLARED_MAX: Final = 100
#: Key in the ``info`` of a session: types and outcomes of the commands that its transaction has recorded.
_TO_COUNT: Final = "relaybox.commands_to_count"
_log: Final = structlog.get_logger(__name__)


class Backbone:
    """The objects that routes share: database, commands, notifier, live streams, token verifier.

    Connections are opened at the first use, so a process can start while PostgreSQL or Kafka is unreachable.
    """

    def __init__(
        self,
        database: Database,
        domains: Sequence[Domain[Any]],
        *,
        verifier: TokenVerifier,
        service: str = "api-gateway",
        registry: CollectorRegistry | None = None,
    ) -> None:
        """Create the objects without connecting.

        Args:
            database: Database of the tables; closed at the end of :meth:`lifespan`.
            domains: The domains whose commands are executed.
            verifier: Verifies bearer tokens.
            service: Name of this service; its events have this name in ``source_service``.
            registry: Registry of the metrics; None creates a registry.
        """
        self._domains = tuple(domains)
        self._settings: tuple[type[BaseSettings], ...] = (
            ServiceSettings,
            OutboxSettings,
            IdempotencySettings,
            RetentionSettings,
        )
        self.database = database
        self.verifier = verifier
        self.service = service
        self.registry = registry or CollectorRegistry()
        self.notifier = Notifier(database)
        self.live = LiveStreams(database)
        self._metrics = CommandMetrics(self.registry)
        self._database_metrics = DatabaseMetrics(self.registry)
        self._is_watching = False
        #: Command types and error codes about which a warning was logged.
        self._undeclared: set[tuple[str, str]] = set()

    @classmethod
    def from_environment(
        cls,
        domains: Sequence[Domain[Any]],
        *,
        service: str,
        postgres: type[PostgresSettings] = PostgresSettings,
    ) -> Self:
        """Create a backbone from the settings ``POSTGRES_*`` and ``JWT_*``.

        The settings are read by :meth:`lifespan` or at the first use, because tests, Alembic and programs
        that write the OpenAPI document import the application without settings.

        Args:
            domains: The domains whose commands are executed.
            service: Name of this service; its events have this name in ``source_service``.
            postgres: Settings class that reads ``POSTGRES_*``; a subclass may have other defaults.
        """
        database = Database(application_name=service, settings_class=postgres)
        backbone = cls(database, domains, verifier=SharedSecretVerifier(), service=service)
        backbone._settings = (postgres, JwtSettings, *backbone._settings)
        return backbone

    def __repr__(self) -> str:
        return f"<Backbone {self.service} [{self.commands!r} | {self.live!r}]>"

    @cached_property
    def commands(self) -> CommandService:
        """The service that executes the commands of the domains.

        Raises:
            TypeError: Two domains have the same name or declare the same command type.
            TopicUndeclared: A domain's topic is not in ``OUTBOX_TOPICS``.
            SettingsError: ``OUTBOX_…`` is malformed.
        """
        return CommandService(
            self.database, self._domains, notifier=self.notifier, source_service=self.service
        )

    @cached_property
    def _sweeper(self) -> Sweeper:
        return Sweeper(self.database, self.registry)

    def check_settings(self) -> None:
        """Read all settings that this backbone needs, to find errors at the start.

        Raises:
            SettingsError: Settings are missing or malformed; the message has one line per setting.
            TopicUndeclared: A domain's topic is not in ``OUTBOX_TOPICS``.
            TypeError: Two domains have the same name or declare the same command type.
        """
        check_settings(*self._settings)
        _ = self.commands

    async def submit(self, domain: Domain[Any], command: Command) -> CommandResult:
        """Execute one command, and count its outcome in the metrics.

        Raises:
            RelayboxError: See :meth:`relaybox.commands.CommandService.submit`.
        """
        known = command.command_type if command.command_type in domain.handlers else "unknown"
        with self.count_refusals(known):
            try:
                result = await self.commands.submit(command, domain=domain)
            except RelayboxError as error:
                self._check_declared(domain, command, error)
                raise
        self._metrics.record_command(command_type=known, outcome=result.status)
        return result

    def _check_declared(self, domain: Domain[Any], command: Command, error: RelayboxError) -> None:
        """Log a warning if *error* is a refusal that the command's type does not declare in ``refuses=``.

        The OpenAPI document does not contain undeclared refusals. A process logs one warning for each pair of
        command type and error code, for at most 100 pairs.
        """
        handler = domain.handlers.get(command.command_type)
        is_known = not isinstance(error, CommandRefused) or type(error) is CommandRefused
        if handler is None or is_known or isinstance(error, handler.refuses):
            return
        refusal = (command.command_type, error.error_code)
        if refusal not in self._undeclared and len(self._undeclared) < _UNDECLARED_MAX:
            self._undeclared.add(refusal)
            _log.warning(
                "refusal not declared; add it to refuses= of the command",
                command_type=command.command_type,
                error_code=error.error_code,
            )

    @contextmanager
    def count_refusals(self, command_type: str) -> Generator[None]:
        """Count an error in the ``with`` block as the outcome of a command of type *command_type*.

        The metrics have the error code of the error, or ``REPLAYED`` for a replay. Use this method for
        commands that the application decides (:func:`relaybox.commands.append_events`). The block must
        contain the unit of work, so that replays and failed commits are counted too.
        """
        try:
            yield
        except RelayboxError as error:
            self._metrics.record_command(command_type=command_type, outcome=error.error_code)
            raise
        except Replay:
            self._metrics.record_command(command_type=command_type, outcome="REPLAYED")
            raise
        except ResponseReplaced as replaced:
            if isinstance(replaced.__cause__, RelayboxError):
                self._metrics.record_command(command_type=command_type, outcome=replaced.__cause__.error_code)
            raise

    def count_after_commit(self, db: AsyncSession, command_type: str, outcome: str) -> None:
        """Count a command that the application decided, when the transaction of *db* commits.

        Args:
            db: The session in which the application has written the command.
            command_type: Type of the command.
            outcome: Outcome in the metrics, such as ``COMPLETED``.
        """
        if _TO_COUNT not in db.info:
            db.info[_TO_COUNT] = list[tuple[str, str]]()
            event.listen(db.sync_session, "after_commit", self._count_committed)
            event.listen(db.sync_session, "after_transaction_end", _discard_uncounted)
        db.info[_TO_COUNT].append((command_type, outcome))

    def _count_committed(self, session: Session) -> None:
        # SQLAlchemy sends ``after_commit`` for savepoints too, before the transaction is committed.
        if not session.in_nested_transaction():
            for command_type, outcome in session.info[_TO_COUNT]:
                self._metrics.record_command(command_type=command_type, outcome=outcome)

    @asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncGenerator[None]:
        """Run notifier, live streams and background jobs: ``create_app(lifespan=backbone.lifespan, …)``.

        At the end of the application, these are stopped, queued commands are awaited, and the database is
        closed. The background jobs remove expired and old rows (the sweeper) and expire pauses of flows.
        Logging is configured by ``LOG_LEVEL`` and ``LOG_JSON``, unless the application has configured it, see
        :func:`relaybox.telemetry.ensure_logging`.

        Raises:
            SettingsError, TopicUndeclared, TypeError: See :meth:`check_settings`; nothing was started.
            KeysIgnored: A route accepts idempotency keys, and no IdempotencyMiddleware handles them; nothing
                was started.
        """
        self.check_settings()
        check_keyed_routes(app)
        logs = load_settings(ServiceSettings)
        ensure_logging(self.service, logs.log_level, logs.log_json)
        self._watch_database()
        await self.notifier.start()
        await self.live.start()
        jobs = (self._sweeper, FlowExpiry(self.database))
        running = [asyncio.create_task(job.run()) for job in jobs]
        try:
            with _on_shutdown_signal(self.live.end), _startup_objects_frozen():
                yield
        finally:
            for job in jobs:
                job.stop()
            await asyncio.gather(*running)
            await self.live.stop()
            await self.commands.close()
            await self.notifier.stop()
            await self.database.close()

    def _watch_database(self) -> None:
        if not self._is_watching:
            self._is_watching = True
            self.notifier.attach(self.database.sessions)
            self._database_metrics.watch(self.database)


def _discard_uncounted(session: Session, transaction: SessionTransaction) -> None:
    if transaction.parent is None:
        session.info[_TO_COUNT].clear()


@contextmanager
def _startup_objects_frozen() -> Generator[None]:
    """Exclude existing objects from garbage collection, and collect less often, in a ``with`` block.

    Modules and routes exist as long as the process, so a collection never frees them. Full collections that
    visited these objects paused the API for 130 ms after every 700 commands, 23 % of a worker's CPU time.
    """
    thresholds = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()


@contextmanager
def _on_shutdown_signal(action: Callable[[], None]) -> Generator[None]:
    """Call *action* when the process receives SIGTERM or SIGINT; then call the server's own signal handler.

    The server waits for running responses before it ends the lifespan. Live streams run until *action* ends
    them, so without *action* each stop would take the server's whole grace period. Outside of the main thread
    this function does nothing, because Python allows signal handlers in the main thread only.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def handle(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(action)
        server = before[signal.Signals(number)]
        if callable(server):
            server(number, frame)

    for number in before:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
