"""``relaybox topics create``: the topics that events go to."""

import asyncio
from typing import Annotated

import typer
from pydantic_core import to_json

from relaybox.cli._report import ErrorsAsLines
from relaybox.outbox import OutboxSettings
from relaybox.relay import ensure_topics
from relaybox.settings import KafkaSettings, load_settings

__all__ = ("topics_commands",)

topics_commands = typer.Typer(cls=ErrorsAsLines, no_args_is_help=True, help="The topics that events go to.")


@topics_commands.callback()
def main() -> None:
    """The topics that events go to."""


@topics_commands.command()
def create(
    partitions: Annotated[
        int, typer.Option("--partitions", min=1, max=10_000, help="Of each new topic; fixed for ever.")
    ] = 8,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of lines.")] = False,
) -> None:
    """Create those of OUTBOX_TOPICS that do not exist; the others stay as they are.

    Raises:
        SettingsError: KAFKA_* or OUTBOX_TOPICS is malformed.
        TopicsNotReady: the broker does not answer, or refuses.
    """
    topics = load_settings(OutboxSettings).declared()
    created = asyncio.run(ensure_topics(load_settings(KafkaSettings), topics, partitions=partitions))
    if as_json:
        typer.echo(to_json({"created": created}).decode())
        return
    for line in [f"created {topic}" for topic in created] or ["nothing to create: every topic exists"]:
        typer.echo(line)
