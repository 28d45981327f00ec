"""The composition root of an API process: everything it needs, made once, started together."""

import asyncio
import signal
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from types import FrameType
from typing import Any, Self

from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from relaybox.commands import CommandResult, CommandService, Domain
from relaybox.commands import Request as Command
from relaybox.db import Database
from relaybox.errors import RelayboxError
from relaybox.http._live import LiveStreams
from relaybox.http._tokens import SharedSecretVerifier, TokenVerifier
from relaybox.idempotency import Replay, Sweeper
from relaybox.outbox import Notifier
from relaybox.service import ServiceSettings
from relaybox.settings import JwtSettings, PostgresSettings, load_settings
from relaybox.telemetry import CommandMetrics, DatabaseMetrics, ensure_logging

__all__ = ("Backbone",)


class Backbone:
    """What the routes of an API share: database, commands, notifier, live streams, tokens.

    Nothing connects before it is used, so a process starts while PostgreSQL or Kafka is away.
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
        self.database = database
        self.verifier = verifier
        #: What events name as their ``source_service``.
        self.service = service
        self.registry = registry or CollectorRegistry()
        self.notifier = Notifier(database)
        self.notifier.attach(database.sessions)
        self.commands = CommandService(database, domains, notifier=self.notifier, source_service=service)
        self.live = LiveStreams(database)
        self._sweeper = Sweeper(database, self.registry)
        self._metrics = CommandMetrics(self.registry)
        DatabaseMetrics(self.registry).watch(database)

    @classmethod
    def from_environment(cls, domains: Sequence[Domain[Any]], *, service: str) -> Self:
        """Made of ``POSTGRES_*`` and ``JWT_*``, which is all that *domains* need.

        Raises:
            SettingsError: one line per setting that is missing or malformed.
        """
        database = Database(load_settings(PostgresSettings), application_name=service)
        verifier = SharedSecretVerifier(load_settings(JwtSettings))
        return cls(database, domains, verifier=verifier, service=service)

    def __repr__(self) -> str:
        return f"<Backbone {self.service} [{self.commands!r} | {self.live!r}]>"

    async def take(self, domain: Domain[Any], command: Command) -> CommandResult:
        """Take one command, see :meth:`relaybox.commands.CommandService.submit`, and count how it ended."""
        known = command.command_type if command.command_type in domain.handlers else "unknown"
        try:
            result = await self.commands.submit(command, domain=domain)
        except RelayboxError as error:
            self._metrics.decided(command_type=known, outcome=error.error_code)
            raise
        except Replay:
            self._metrics.decided(command_type=known, outcome="REPLAYED")
            raise
        self._metrics.decided(command_type=known, outcome=result.status)
        return result

    @asynccontextmanager
    async def lifespan(self, _app: FastAPI) -> AsyncGenerator[None]:
        """Run with the application: ``create_app(lifespan=backbone.lifespan, …)``.

        Configures logging by ``LOG_LEVEL`` and ``LOG_JSON`` unless the application has configured its own,
        see :func:`relaybox.telemetry.ensure_logging`.
        """
        logs = load_settings(ServiceSettings)
        ensure_logging(self.service, logs.log_level, logs.log_json)
        await self.notifier.start()
        await self.live.start()
        sweeping = asyncio.create_task(self._sweeper.run(), name="idempotency-sweeper")
        try:
            with _on_shutdown_signal(self.live.end):
                yield
        finally:
            self._sweeper.stop()
            await sweeping
            await self.live.stop()
            await self.commands.close()
            await self.notifier.stop()
            await self.database.close()


@contextmanager
def _on_shutdown_signal(action: Callable[[], None]) -> Generator[None]:
    """Also call *action* when the server is told to stop.

    The server waits for open answers before it ends the lifespan, and live streams never end by
    themselves: without this every stop would take the server's whole grace period.
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
