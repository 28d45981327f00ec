"""From the environment to the story."""

import asyncio
import os
import signal
from collections.abc import Mapping
from contextlib import AsyncExitStack
from types import MappingProxyType
from typing import Final, Literal
from uuid import uuid4

import httpx2
from relaybox.http import make_token
from relaybox.settings import JwtSettings, KafkaSettings, TaskSettings, load_settings
from rich.console import Console

from backend.demo._own import own_product
from backend.demo._story import WAIT_S, Story, Wishes
from backend.demo._timeline import StepMissed, Timeline
from backend.demo._topic import Topic
from backend.demo.club import ClubStory, Member, People, Witness
from backend.genesis.session import genesis
from backend.running import NotRunning, ProductSettings, running_environment

__all__ = ("Language", "Tale", "run_demo")

#: What the writer of Genesis' story speaks.
Language = Literal["zh", "en"]
#: Whose story is told.
Tale = Literal["genesis", "workspace"]

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
#: Beside what the step itself says.
_REMEDY: Final = (
    "What the services say of it stands in the terminal of `make run`;"
    " if there is none, start one and tell the story again beside it."
)
#: What shells give to who was ended by Ctrl-C.
_INTERRUPTED: Final = 130


async def run_demo(tale: Tale = "genesis", language: Language = "zh") -> int:
    """Tell a story to the running product, or to one of its own; 0 only if every step happened.

    *language* is that of Genesis' story; the one of the workspace is in English.
    """
    console = Console(highlight=False)
    story = asyncio.ensure_future(_tell(console, tale, language))
    for number in (signal.SIGINT, signal.SIGTERM):
        # Cancelled rather than killed, so that a product of the demo's own is stopped with it.
        asyncio.get_running_loop().add_signal_handler(number, story.cancel)
    try:
        await story
    except StepMissed as missed:
        console.print(f"\nThe story broke off. {missed}", style="bold red", markup=False, soft_wrap=True)
        console.print(_REMEDY, markup=False, soft_wrap=True)
        return 1
    except asyncio.CancelledError:
        console.print("\nStopped before its end.", style="bold red")
        return _INTERRUPTED
    console.print("\nEvery step happened.", style="bold green")
    return 0


async def _tell(console: Console, tale: Tale, language: Language) -> None:
    async with AsyncExitStack() as stack:
        environment = await _product(console, stack)
        timeline = Timeline(console)
        # The product's way to Kafka, which is not always this process's own.
        os.environ.update({name: value for name, value in environment.items() if name.startswith("KAFKA_")})
        topic = await stack.enter_async_context(Topic.opened(load_settings(KafkaSettings), genesis.topic))
        # A worker that was killed is replaced when its lease has run out.
        wait_s = WAIT_S + load_settings(TaskSettings).lease_s
        api = _Api(environment["API_URL"], stack)
        if tale == "genesis":
            client = await api.client(environment["DEV_TOKEN"])
            story = Story(timeline, client, topic, agent_s=wait_s)
            await story.tell(_WISHES[language], _FEEDBACK[language])
            return
        witness = Witness(uuid4(), wait_s=wait_s)
        await ClubStory(timeline, await _people(api, environment, witness), topic, witness).tell()


class _Api:
    """Clients of the product, closed with *stack*."""

    def __init__(self, url: str, stack: AsyncExitStack) -> None:
        self._url, self._stack = url, stack

    async def client(self, token: str | None) -> httpx2.AsyncClient:
        """A client for whoever has *token*."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        client = httpx2.AsyncClient(base_url=self._url, headers=headers, timeout=_REQUEST_S, trust_env=False)
        return await self._stack.enter_async_context(client)


async def _people(api: _Api, environment: Mapping[str, str], witness: Witness) -> People:
    given = {name: environment[f"JWT_{name.upper()}"] for name in ("secret", "issuer", "audience")}
    settings = JwtSettings.model_validate(given)

    async def member(name: str, *, known: bool = True) -> Member:
        client = await api.client(make_token(settings, name) if known else None)
        return Member(client, name, correlation_id=witness.correlation_id, patience_s=witness.wait_s)

    return People(
        teacher=await member("teacher"),
        coach=await member("coach"),
        pupil=await member("pupil"),
        guest=await member("guest", known=False),
    )


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
