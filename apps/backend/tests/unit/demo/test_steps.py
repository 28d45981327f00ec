"""A step that did not happen ends the demo, and says why."""

import asyncio

import httpx2 as httpx
import pytest
from backend.demo import StepMissed, _run, run_demo
from backend.demo._expect import expect, require
from backend.demo._listening import listening


def test_an_answer_with_the_status_of_the_story_is_given_on() -> None:
    answer = httpx.Response(202)
    assert expect(answer, "export", 200, 202) is answer


def test_a_refusal_is_told_by_its_code_and_its_message_which_has_the_remedy() -> None:
    body = {
        "error_code": "CHESS_NOT_INSTALLED",
        "message": "studies need chess; install it",
        "request_id": "r",
    }
    with pytest.raises(StepMissed) as missed:
        expect(httpx.Response(501, json=body), "import 100 games", 201)
    assert str(missed.value) == (
        "import 100 games: 201 expected, got 501 CHESS_NOT_INSTALLED: studies need chess; install it"
    )


@pytest.mark.parametrize("body", ["<html>", "[]", "{}", "null", "", '{"error_code": "X"}'])
def test_an_answer_that_is_no_refusal_of_ours_is_told_as_it_is(body: str) -> None:
    with pytest.raises(StepMissed) as missed:
        expect(httpx.Response(502, text=body), "create", 201)
    assert str(missed.value) == f"create: 201 expected, got 502 {body}"


def test_what_is_required_and_did_not_happen_is_said() -> None:
    require(True, "it should rain")
    with pytest.raises(StepMissed, match="it should rain"):
        require(False, "it should rain")


async def test_who_listens_is_ended_with_the_story() -> None:
    ended = asyncio.Event()

    async def listen() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with listening(listen()):
        await asyncio.sleep(0)
        assert not ended.is_set()
    assert ended.is_set()


async def test_a_listener_that_broke_is_what_the_story_missed() -> None:
    async def listen() -> None:
        raise ValueError("no event")

    async def story() -> None:
        async with listening(listen()):
            await asyncio.sleep(0)
            raise StepMissed("node.created: not seen")

    with pytest.raises(StepMissed, match=r"node.created: not seen \(listening broke: no event\)"):
        await story()


async def test_the_exit_code_says_whether_every_step_happened(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def told(*_: object) -> None:
        pass

    async def missed(*_: object) -> None:
        raise StepMissed("export: no [zip]")

    monkeypatch.setattr(_run, "_tell", told)
    assert await run_demo("workspace") == 0
    assert "Every step happened." in capsys.readouterr().out
    monkeypatch.setattr(_run, "_tell", missed)
    assert await run_demo("workspace") == 1
    out = capsys.readouterr().out
    assert "The story broke off. export: no [zip]" in out
    assert "Every step" not in out
    assert "make run" in out
