"""What a service needs beside its own work: how it speaks, and when it ends."""

import asyncio
import signal
from contextlib import suppress
from typing import Annotated, Protocol

import structlog
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from relaybox.telemetry import LogLevel

__all__ = ("Service", "ServiceSettings", "run_until_signal")

_log = structlog.get_logger(__name__)


class ServiceSettings(BaseSettings):
    """How a service logs, and where it shows its health."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")

    log_level: LogLevel = "INFO"
    #: Lines for people instead of JSON; by default people get theirs on a terminal.
    log_json: bool | None = None
    #: Where it serves ``/healthz``, ``/readyz`` and ``/metrics``; an API has these pages itself.
    health_host: str = "127.0.0.1"
    health_port: Annotated[int, Field(ge=1, le=65_535)] = 8001


class Service(Protocol):
    """What works until it is told to stop: a relay, a consumer, a task runner."""

    async def run(self) -> None:
        """Work until :meth:`stop`."""
        ...

    def stop(self) -> None:
        """Let :meth:`run` finish what is in hand and return."""
        ...


async def run_until_signal(*services: Service) -> None:
    """Run *services* together until SIGTERM or SIGINT; the end of one stops the others too.

    They are told to stop in the order given. To be called in the main thread, once per process.

    Raises:
        Exception: whatever one of them raised, after all of them have ended.
    """

    def stop() -> None:
        for service in services:
            service.stop()

    def stop_by_signal() -> None:
        _log.info("stopping")
        stop()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        # Only POSIX has it; elsewhere the interpreter's own answer to Ctrl-C remains.
        with suppress(NotImplementedError):
            loop.add_signal_handler(number, stop_by_signal)
    running = [asyncio.create_task(service.run()) for service in services]
    await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    stop()
    ended = await asyncio.gather(*running, return_exceptions=True)
    for outcome in ended:
        if isinstance(outcome, BaseException):
            raise outcome
