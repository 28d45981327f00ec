"""From the environment to the story."""

import asyncio
import os
import signal
from collections.abc import Mapping
from contextlib import AsyncExitStack
from types import MappingProxyType
from typing import Final, Literal

import httpx
from relaybox.settings import KafkaSettings, TaskSettings, load_settings
from rich.console import Console

from backend.demo._own import own_product
from backend.demo._story import WAIT_S, Story, Wishes
from backend.demo._timeline import StepMissed, Timeline
from backend.demo._topic import Topic
from backend.genesis.session import genesis
from backend.running import NotRunning, ProductSettings, running_environment

__all__ = ("Language", "run_demo")


#: What the writer of the story speaks.
Language = Literal["zh", "en"]

_WISHES: Final[Mapping[Language, Wishes]] = MappingProxyType(
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
#: What shells give to who was ended by Ctrl-C.
_INTERRUPTED: Final = 130


async def run_demo(language: Language = "zh") -> int:
    """Tell the story to the running product, or to one of its own; 0 only if every step happened."""
    console = Console(highlight=False)
    story = asyncio.ensure_future(_tell(console, language))
    for number in (signal.SIGINT, signal.SIGTERM):
        # Cancelled rather than killed, so that a product of the demo's own is stopped with it.
        asyncio.get_running_loop().add_signal_handler(number, story.cancel)
    try:
        await story
    except StepMissed as missed:
        console.print(f"\nThe story broke off. {missed}", style="bold red", markup=False, soft_wrap=True)
        return 1
    except asyncio.CancelledError:
        console.print("\nStopped before its end.", style="bold red")
        return _INTERRUPTED
    console.print("\nEvery step happened.", style="bold green")
    return 0


async def _tell(console: Console, language: Language) -> None:
    async with AsyncExitStack() as stack:
        environment = await _product(console, stack)
        timeline = Timeline(console)
        # The product's way to Kafka, which is not always this process's own.
        os.environ.update({name: value for name, value in environment.items() if name.startswith("KAFKA_")})
        kafka = load_settings(KafkaSettings)
        topic = await stack.enter_async_context(Topic.opened(kafka, genesis.topic))
        client = await stack.enter_async_context(
            httpx.AsyncClient(
                base_url=environment["API_URL"],
                headers={"Authorization": f"Bearer {environment['DEV_TOKEN']}"},
                timeout=_REQUEST_S,
                trust_env=False,
            )
        )
        agent_s = WAIT_S + load_settings(TaskSettings).lease_s
        await Story(timeline, client, topic, agent_s=agent_s).tell(_WISHES[language], _FEEDBACK[language])


async def _product(console: Console, stack: AsyncExitStack) -> Mapping[str, str]:
    settings = load_settings(ProductSettings)
    try:
        environment = running_environment(settings)
    except NotRunning:
        with console.status("No product runs here: starting one for this story"):
            environment = await stack.enter_async_context(own_product(settings))
        console.print(f"A product of the demo's own is ready at {environment['API_URL']}\n")
        return environment
    console.print(f"Talking to the running product at {environment['API_URL']}\n")
    return environment
