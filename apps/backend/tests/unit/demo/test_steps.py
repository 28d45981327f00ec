"""A step that did not happen ends the demo with an error that names it."""

import asyncio

import httpx2 as httpx
import pytest
from backend.demo import StepMissed, _run, run_demo
from backend.demo._client import require_status
from backend.demo._sources import in_background
from backend.demo._timeline import require


def test_expected_status_returns_the_response() -> None:
    answer = httpx.Response(202)
    assert require_status(answer, "export", 200, 202) is answer


def test_unexpected_error_is_shown_with_code_and_message() -> None:
    body = {
        "error_code": "CHESS_NOT_INSTALLED",
        "message": "studies need chess; install it",
        "request_id": "r",
    }
    with pytest.raises(StepMissed) as missed:
        require_status(httpx.Response(501, json=body), "import 100 games", 201)
    assert str(missed.value) == (
        "import 100 games: 201 expected, got 501 CHESS_NOT_INSTALLED: studies need chess; install it"
    )


@pytest.mark.parametrize("body", ["<html>", "[]", "{}", "null", "", '{"error_code": "X"}'])
def test_unexpected_response_is_shown_with_its_text(body: str) -> None:
    with pytest.raises(StepMissed) as missed:
        require_status(httpx.Response(502, text=body), "create", 201)
    assert str(missed.value) == f"create: 201 expected, got 502 {body}"


def test_require_raises_the_problem() -> None:
    require(True, "it should rain")
    with pytest.raises(StepMissed, match="it should rain"):
        require(False, "it should rain")


async def test_readers_end_with_the_story() -> None:
    ended = asyncio.Event()

    async def listen() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with in_background(listen()):
        await asyncio.sleep(0)
        assert not ended.is_set()
    assert ended.is_set()


async def test_failure_of_a_reader_is_part_of_the_missed_step() -> None:
    async def listen() -> None:
        raise ValueError("no event")

    async def story() -> None:
        async with in_background(listen()):
            await asyncio.sleep(0)
            raise StepMissed("node.created: not seen")

    with pytest.raises(StepMissed, match=r"node.created: not seen \(reading failed: no event\)"):
        await story()


async def test_exit_code_is_0_only_if_every_step_happened(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def played(*_: object) -> None:
        pass

    async def missed(*_: object) -> None:
        raise StepMissed("export: no [zip]")

    monkeypatch.setattr(_run, "_play", played)
    assert await run_demo("workspace") == 0
    assert "Every step happened." in capsys.readouterr().out
    monkeypatch.setattr(_run, "_play", missed)
    assert await run_demo("workspace") == 1
    out = capsys.readouterr().out
    assert "The story stopped. export: no [zip]" in out
    assert "Every step" not in out
    assert "make run" in out
