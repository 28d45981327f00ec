"""The muse with a language model, against a server that follows the protocol and breaks it on purpose."""

import logging
import socket
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
from backend.genesis.muse import (
    Brief,
    Muse,
    MuseAnswerBroken,
    MuseError,
    MuseNotInstalled,
    MuseRateLimited,
    MuseRefused,
    MuseSettings,
    MuseTimedOut,
    MuseUnavailable,
    OfflineMuse,
    muse_from_settings,
)
from pydantic import HttpUrl, SecretStr
from relaybox.errors import SettingsError
from shared_types.genesis import Concept, Feedback, GenesisStage, Preferences, Proposal
from starlette.responses import HTMLResponse, JSONResponse, Response

from apps.backend.tests.integration.muse.endpoint import Endpoint, fails, json_of, running_endpoint, says

KEY = "sk-secret"
BRIEF = Brief(stage=GenesisStage.CONCEPT_SELECTION, seed="one")


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests to local servers bypass a developer's proxy."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    async with running_endpoint() as endpoint:
        yield endpoint


def muse_at(base_url: str, **settings: Any) -> Muse:
    return muse_from_settings(
        MuseSettings(
            muse="llm",
            muse_base_url=HttpUrl(base_url),
            muse_api_key=SecretStr(KEY),
            muse_model="test-model",
            **{"muse_timeout_s": 30.0, **settings},
        )
    )


async def ignore(percent: float) -> None:
    """Ignore progress."""


async def ask(
    endpoint: Endpoint, *script: Response | None, brief: Brief = BRIEF, **settings: Any
) -> Proposal:
    endpoint.script = list(script)
    return await muse_at(endpoint.base_url, **settings).propose(brief, ignore)


def concept(number: int = 0, **changes: Any) -> dict[str, Any]:
    concept = Concept(
        title=f"Title {number}", logline="Somebody.", hook="What if?", themes=("sea",), tone="dry"
    )
    return {**concept.model_dump(mode="json"), **changes}


GOOD = {"options": [concept(0), concept(1), concept(2)], "remark": "Three."}


async def test_valid_response_becomes_a_proposal(endpoint: Endpoint) -> None:
    proposal = await ask(endpoint, says(json_of(GOOD)))
    assert proposal == Proposal.model_validate({"stage": "CONCEPT_SELECTION", **GOOD})


async def test_prompt_contains_the_whole_brief(endpoint: Endpoint) -> None:
    brief = Brief(
        stage=GenesisStage.STORY_CONCEPTION,
        preferences=Preferences(theme_preferences=("科幻",)),
        confirmed={GenesisStage.CONCEPT_SELECTION: Concept.model_validate(concept(title="雾港 {braces}"))},
        feedback=(Feedback(feedback="Darker", rating=2),),
        seed="one",
    )
    parts = ("premise", "conflict", "stakes", "ending", "perspective")
    await ask(endpoint, says(json_of({"options": [dict.fromkeys(parts, "Text.")]})), brief=brief)
    asked = endpoint.asked[0]
    told = "".join(message["content"] for message in asked["messages"])
    assert asked["model"] == "test-model"
    assert endpoint.keys == [f"Bearer {KEY}"]
    for piece in (
        "STORY_CONCEPTION",
        "科幻",
        "雾港 {braces}",
        "Darker",
        '"perspective"',
        '"maxLength": 1200',
    ):
        assert piece in told


@pytest.mark.parametrize("wrapped", ["```json\n{}\n```", "Here you are:\n{}\nEnjoy!"])
async def test_text_around_the_json_is_ignored(endpoint: Endpoint, wrapped: str) -> None:
    await ask(endpoint, says(wrapped.replace("{}", json_of(GOOD))))
    assert len(endpoint.asked) == 1


async def test_progress_increases_to_100_percent(endpoint: Endpoint) -> None:
    seen: list[float] = []

    async def note(percent: float) -> None:
        seen.append(percent)

    endpoint.script = [says("?"), says(json_of(GOOD))]
    await muse_at(endpoint.base_url).propose(BRIEF, note)
    assert seen == sorted(set(seen))
    assert seen[-1] == 100.0


async def test_error_of_the_progress_callback_is_passed_on(endpoint: Endpoint) -> None:
    async def fail(percent: float) -> None:
        raise TimeoutError("the database is slow")

    with pytest.raises(TimeoutError, match="the database is slow"):
        await muse_at(endpoint.base_url).propose(BRIEF, fail)


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_temporary_error_of_the_endpoint_is_retried(endpoint: Endpoint, status: int) -> None:
    await ask(endpoint, fails(status), fails(status), says(json_of(GOOD)))
    assert len(endpoint.asked) == 3


@pytest.mark.parametrize(
    ("status", "error", "times_asked"),
    [
        (429, MuseRateLimited, 3),
        (500, MuseUnavailable, 3),
        (503, MuseUnavailable, 3),
        (400, MuseRefused, 1),
        (401, MuseRefused, 1),
        (404, MuseRefused, 1),
    ],
)
async def test_permanent_error_of_the_endpoint_is_mapped(
    endpoint: Endpoint, status: int, error: type[MuseError], times_asked: int
) -> None:
    with pytest.raises(error):
        await ask(endpoint, *[fails(status)] * 3)
    assert len(endpoint.asked) == times_asked


async def test_retry_waits_for_retry_after(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []

    async def wait(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr("anyio.sleep", wait)
    await ask(endpoint, fails(429, retry_after_ms="", retry_after="7"), says(json_of(GOOD)))
    assert waited == [7.0]


async def test_unresponsive_endpoint_times_out(endpoint: Endpoint) -> None:
    with pytest.raises(MuseTimedOut, match=r"within 0\.2 s.*MUSE_TIMEOUT_S"):
        await ask(endpoint, None, muse_timeout_s=0.2)


async def test_time_limit_includes_the_retry(endpoint: Endpoint) -> None:
    with pytest.raises(MuseTimedOut):
        await ask(endpoint, says("?"), None, muse_timeout_s=2.0)
    assert len(endpoint.asked) == 2


async def test_unreachable_endpoint_is_unavailable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(MuseUnavailable, match="MUSE_BASE_URL"):
        await muse_at(f"http://127.0.0.1:{port}/v1", muse_retries_max=0).propose(BRIEF, ignore)


BROKEN = {
    "no JSON at all": "I would rather not.",
    "JSON cut off": json_of(GOOD)[:-20] + "}",
    "too deep": '{"options":' + "[" * 10_000 + "]" * 10_000 + "}",
    "no options": json_of({"concepts": GOOD["options"]}),
    "two concepts": json_of({"options": GOOD["options"][:2]}),
    "a field too many": json_of({"options": [concept(0, mood="x"), concept(1), concept(2)]}),
    "a text too long": json_of({"options": [concept(0, title="x" * 201), concept(1), concept(2)]}),
    "a NUL": json_of({"options": [concept(0, title="a\x00b"), concept(1), concept(2)]}),
    "nothing": None,
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN.keys())
async def test_invalid_response_is_retried_once(endpoint: Endpoint, broken: str | None) -> None:
    proposal = await ask(endpoint, says(broken), says(json_of(GOOD)))
    assert len(proposal.options) == 3
    *_, said, retry_request = endpoint.asked[1]["messages"]
    assert said == {"role": "assistant", "content": broken or ""}
    assert "cannot be used" in retry_request["content"]


async def test_retry_contains_the_validation_errors(endpoint: Endpoint) -> None:
    await ask(endpoint, says(BROKEN["a text too long"]), says(json_of(GOOD)))
    assert "Concept.title: String should have at most 200" in endpoint.asked[1]["messages"][-1]["content"]


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN.keys())
async def test_two_invalid_responses_are_an_error(endpoint: Endpoint, broken: str | None) -> None:
    with pytest.raises(MuseAnswerBroken, match="test-model"):
        await ask(endpoint, says(broken), says(broken))


@pytest.mark.parametrize(
    "answer",
    [
        HTMLResponse("<h1>Welcome to nginx</h1>"),
        Response("{broken", media_type="application/json"),
        JSONResponse({"choices": []}),
        JSONResponse([]),
        JSONResponse(None),
    ],
    ids=["html", "broken json", "no choices", "a list", "null"],
)
async def test_other_server_at_the_address_is_an_error(endpoint: Endpoint, answer: Response) -> None:
    with pytest.raises(MuseAnswerBroken, match="not the address of a chat-completions endpoint"):
        await ask(endpoint, *[answer] * 3)


@pytest.mark.parametrize("status", [401, 429, 500])
async def test_api_key_is_in_no_error_and_no_log(
    endpoint: Endpoint, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    muse = muse_at(endpoint.base_url)
    endpoint.script = [fails(status)] * 3
    with pytest.raises(MuseError) as caught:
        await muse.propose(BRIEF, ignore)
    assert caught.value.__suppress_context__
    shown = [record.getMessage() for record in caplog.records]
    assert all(KEY not in text for text in (repr(muse), str(caught.value), *shown))


def test_default_muse_is_offline() -> None:
    assert muse_from_settings(MuseSettings(muse="offline", muse_pace_s=0.5)) == OfflineMuse(pace_s=0.5)


def test_language_model_without_a_name_is_refused() -> None:
    with pytest.raises(SettingsError, match="MUSE_MODEL"):
        muse_from_settings(MuseSettings(muse="llm", muse_model=""))


def test_missing_library_is_an_error_with_the_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "backend.genesis.muse._language_model", raising=False)
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(MuseNotInstalled, match=r"pip install .*'\./apps/backend\[llm\]'"):
        muse_at("http://127.0.0.1:1/v1")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MUSE", "crystal ball"),
        ("MUSE_TIMEOUT_S", "0"),
        ("MUSE_RETRIES_MAX", "99"),
        ("MUSE_BASE_URL", "nowhere"),
    ],
)
def test_error_names_a_malformed_setting(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from relaybox.settings import load_settings

    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=rf"^{name}: "):
        load_settings(MuseSettings)
