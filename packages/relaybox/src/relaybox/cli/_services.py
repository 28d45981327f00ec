"""``relaybox relay run`` and ``relaybox consumer run``: services for whoever has none around them."""

import asyncio
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from importlib import import_module
from typing import Annotated

import typer
from prometheus_client import CollectorRegistry

from relaybox.cli._extras import needs_extra
from relaybox.cli._report import ErrorsAsLines
from relaybox.consumers import Consumer, Subscription
from relaybox.db import BACKBONE, Database
from relaybox.outbox import Notifier
from relaybox.relay import Relay
from relaybox.service import ServiceSettings, run_until_signal
from relaybox.settings import KafkaSettings, PostgresSettings, RelaySettings, load_settings
from relaybox.telemetry import (
    DatabaseMetrics,
    check_kafka,
    check_postgres,
    configure_logging,
    health_app,
    serve_health,
)

__all__ = ("consumer_commands", "relay_commands")

relay_commands = typer.Typer(cls=ErrorsAsLines, no_args_is_help=True, help="Publish the outbox to Kafka.")
consumer_commands = typer.Typer(cls=ErrorsAsLines, no_args_is_help=True, help="Hand events to handlers.")


@relay_commands.callback()
def relay() -> None:
    """Publish the outbox to Kafka."""


@relay_commands.command("run")
def run_relay() -> None:
    """Relay until SIGTERM or Ctrl-C; start it several times to share the work.

    POSTGRES_*, KAFKA_* and RELAY_* say how; /healthz, /readyz and /metrics are at HEALTH_PORT.
    """
    with needs_extra("http"):
        asyncio.run(_relay())


@consumer_commands.callback()
def consumer() -> None:
    """Hand events to handlers."""


@consumer_commands.command("run")
def run_consumer(
    names: Annotated[list[str], typer.Argument(metavar="MODULE:NAME...", help="Handlers of one group.")],
    topics: Annotated[list[str] | None, typer.Option("--topic", help="Instead of domain-events.")] = None,
) -> None:
    """Hand events to functions declared with @subscribe, until SIGTERM or Ctrl-C.

    POSTGRES_* and KAFKA_* say where; /healthz, /readyz and /metrics are at HEALTH_PORT.
    """
    subscriptions = [_named(name) for name in names]
    with needs_extra("http"):
        asyncio.run(_consumer(subscriptions, topics or ["domain-events"]))


def _named(name: str) -> Subscription:
    """The subscription that *name* stands for; modules of the working directory are found too."""
    module, _, attribute = name.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        found = getattr(import_module(module), attribute, None)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        found = None
    if not isinstance(found, Subscription):
        raise typer.BadParameter(f"{name} is no function declared with @subscribe", param_hint="MODULE:NAME")
    return found


async def _relay() -> None:
    kafka = load_settings(KafkaSettings)
    async with _service("message-relay", kafka) as database:
        await run_until_signal(Relay(database, kafka, load_settings(RelaySettings)))


async def _consumer(subscriptions: Sequence[Subscription], topics: Sequence[str]) -> None:
    kafka = load_settings(KafkaSettings)
    async with _service(subscriptions[0].group, kafka) as database:
        notifier = Notifier(database)
        notifier.attach(database.sessions)
        await notifier.start()
        try:
            await run_until_signal(Consumer(database, kafka, subscriptions, topics=topics))
        finally:
            await notifier.stop()


@asynccontextmanager
async def _service(name: str, kafka: KafkaSettings) -> AsyncGenerator[Database]:
    """The log, the health pages and the connections of a service called *name*."""
    settings = load_settings(ServiceSettings)
    configure_logging(name, settings.log_level, settings.log_json)
    database, registry = Database(load_settings(PostgresSettings), application_name=name), CollectorRegistry()
    DatabaseMetrics(registry).watch(database)
    pages = health_app(
        {"postgres": check_postgres(database, BACKBONE), "kafka": check_kafka(kafka)}, registry
    )
    try:
        async with serve_health(pages, host=settings.health_host, port=settings.health_port):
            yield database
    finally:
        await database.close()
