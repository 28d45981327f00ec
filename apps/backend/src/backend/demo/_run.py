"""Run a story with the running product or a temporary product: ``backend demo``."""

import asyncio
import os
import signal
from collections.abc import Mapping
from contextlib import AsyncExitStack
from types import MappingProxyType
from typing import Any, Final, Literal
from uuid import uuid4

import httpx2
from relaybox.http import make_token
from relaybox.settings import JwtSettings, KafkaSettings, TaskSettings, load_settings
from rich.console import Console

from backend.demo._client import Client
from backend.demo._club import ClubStory
from backend.demo._club_steps import People
from backend.demo._guided import GuidedStory
from backend.demo._novel import NovelStory
from backend.demo._sources import TopicReader
from backend.demo._temporary_product import temporary_product
from backend.demo._timeline import StepMissed, Timeline
from backend.genesis.session import genesis
from backend.running import NotRunning, ProductSettings, running_environment

__all__ = ("Language", "StoryName", "run_demo")

#: Language of the preferences and the feedback in the story of a novel, and so of the proposals.
Language = Literal["zh", "en"]
StoryName = Literal["genesis", "guided", "workspace"]

_PREFERENCES: Final[Mapping[Language, Mapping[str, Any]]] = MappingProxyType(
    {
        "zh": {
            "theme_preferences": ["科幻", "悬疑"],
            "style_preferences": ["快节奏", "第一人称"],
        },
        "en": {
            "theme_preferences": ["science fiction", "mystery"],
            "style_preferences": ["fast-paced", "first person"],
        },
    }
)
_FEEDBACK: Final[Mapping[Language, str]] = MappingProxyType(
    {
        "zh": "更黑暗一些，结局不要太圆满",
        "en": "Darker, please, and no happy ending",
    }
)
_REQUEST_S: Final = 10.0
#: Seconds to wait for a step, in addition to the lease of a task: if an agent is killed, another agent
#: continues its task when the lease has ended.
_STEP_S: Final = 30.0
_REMEDY: Final = (
    "Look at the services' messages in the terminal of `make run`;"
    " if no product runs, start one and run the demo again in another terminal."
)
#: The exit code of a program that Ctrl-C ended, as shells report it.
_INTERRUPTED: Final = 130


async def run_demo(story: StoryName = "genesis", language: Language = "zh") -> int:
    """Run a story with the running product; if none runs, with a temporary product.

    Args:
        story: ``genesis``, a novel; ``guided``, a novel with a guided run; or ``workspace``, a chess club.
        language: The language of the novel; the story of the chess club is always in English.

    Returns:
        The exit code: 0 if every step was as expected, 1 if not, 130 after a signal.
    """
    console = Console(highlight=False)
    playing = asyncio.ensure_future(_play(console, story, language))
    for number in (signal.SIGINT, signal.SIGTERM):
        # Cancel the task instead of ending the process, so that a temporary product is stopped too.
        asyncio.get_running_loop().add_signal_handler(number, playing.cancel)
    try:
        await playing
    except StepMissed as missed:
        console.print(f"\nThe story stopped. {missed}", style="bold red", markup=False, soft_wrap=True)
        console.print(_REMEDY, markup=False, soft_wrap=True)
        return 1
    except asyncio.CancelledError:
        console.print("\nThe story was interrupted.", style="bold red")
        return _INTERRUPTED
    console.print("\nEvery step happened.", style="bold green")
    return 0


async def _play(console: Console, story: StoryName, language: Language) -> None:
    async with AsyncExitStack() as stack:
        environment = await _environment(console, stack)
        # Use the Kafka of the product: the environment of this process may name another one.
        os.environ.update({name: value for name, value in environment.items() if name.startswith("KAFKA_")})
        topic = await stack.enter_async_context(
            TopicReader.opened(load_settings(KafkaSettings), genesis.topic)
        )
        correlation_id, limit_s = uuid4(), _STEP_S + load_settings(TaskSettings).lease_s

        async def client(name: str, token: str | None) -> Client:
            headers = {} if token is None else {"Authorization": f"Bearer {token}"}
            http = await stack.enter_async_context(
                httpx2.AsyncClient(
                    base_url=environment["API_URL"], headers=headers, timeout=_REQUEST_S, trust_env=False
                )
            )
            return Client(http, name, correlation_id=correlation_id, limit_s=limit_s)

        timeline = Timeline(console)
        if story != "workspace":
            writer = await client("writer", environment["DEV_TOKEN"])
            novel = GuidedStory if story == "guided" else NovelStory
            await novel(timeline, writer, topic).run(_PREFERENCES[language], _FEEDBACK[language])
            return
        jwt = JwtSettings.model_validate(
            {name: environment[f"JWT_{name.upper()}"] for name in ("secret", "issuer", "audience")}
        )
        people = People(
            teacher=await client("teacher", make_token(jwt, "teacher")),
            coach=await client("coach", make_token(jwt, "coach")),
            pupil=await client("pupil", make_token(jwt, "pupil")),
            guest=await client("guest", None),
        )
        await ClubStory(timeline, people, topic).run()


async def _environment(console: Console, stack: AsyncExitStack) -> Mapping[str, str]:
    settings = load_settings(ProductSettings)
    try:
        environment = running_environment(settings)
    except NotRunning:
        with console.status("No product runs here: starting a temporary one"):
            environment = await stack.enter_async_context(temporary_product(settings))
        console.print(f"A temporary product is ready at {environment['API_URL']}\n")
        return environment
    console.print(f"Talking to the running product at {environment['API_URL']}\n")
    return environment
