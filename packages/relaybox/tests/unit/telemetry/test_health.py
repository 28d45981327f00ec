"""The combined state of several checks, and the three health pages of a service without an API."""

import asyncio
import json
from collections.abc import Callable

import httpx2 as httpx
import pytest
from prometheus_client import CollectorRegistry, Counter
from relaybox.telemetry import (
    Check,
    CheckResult,
    HealthReport,
    HealthState,
    SharedCheck,
    health_app,
    run_checks,
)

OK, DEGRADED, FAILED = HealthState.OK, HealthState.DEGRADED, HealthState.FAILED


def check(state: HealthState, detail: str | None = None) -> Check:
    async def run() -> CheckResult:
        return CheckResult(state=state, detail=detail)

    return run


def client(**checks: Check) -> httpx.AsyncClient:
    registry = CollectorRegistry()
    Counter("things", "Things.", registry=registry).inc(2)
    app = health_app(checks, registry)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


@pytest.mark.parametrize(
    ("states", "together", "http_status"),
    [
        ([], OK, 200),
        ([OK, OK], OK, 200),
        ([OK, DEGRADED], DEGRADED, 200),
        ([DEGRADED, FAILED, OK], FAILED, 503),
    ],
)
def test_worst_state_counts_and_only_failed_is_503(
    states: list[HealthState], together: HealthState, http_status: int
) -> None:
    report = HealthReport(results={str(n): CheckResult(state=state) for n, state in enumerate(states)})
    assert (report.state, report.http_status) == (together, http_status)


async def test_all_checks_run_concurrently() -> None:
    meeting = asyncio.Barrier(2)

    async def waits_for_the_other() -> CheckResult:
        await meeting.wait()
        return CheckResult(state=OK)

    report = await run_checks({"a": waits_for_the_other, "b": waits_for_the_other})
    assert report.state is OK


async def test_readyz_names_each_check_and_its_remedy() -> None:
    async with client(postgres=check(OK), kafka=check(FAILED, "start it")) as http:
        answer = await http.get("/readyz")
    assert answer.status_code == 503
    assert answer.json() == {
        "status": "failed",
        "checks": {"postgres": {"status": "ok"}, "kafka": {"status": "failed", "detail": "start it"}},
    }


async def test_healthz_runs_no_check() -> None:
    async with client(postgres=check(FAILED)) as http:
        answer = await http.get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


async def test_metrics_are_in_prometheus_format() -> None:
    async with client() as http:
        answer = await http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "things_total 2.0" in answer.text


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [("GET", "/other", 404, "NOT_FOUND"), ("POST", "/healthz", 405, "METHOD_NOT_ALLOWED")],
)
async def test_other_paths_have_an_error_body(method: str, path: str, status: int, code: str) -> None:
    async with client() as http:
        answer = await http.request(method, path)
    assert (answer.status_code, json.loads(answer.content)["error_code"]) == (status, code)


@pytest.fixture
def late() -> CheckResult:
    return CheckResult(state=FAILED, detail="late")


async def test_concurrent_probes_share_one_run_of_the_checks(late: CheckResult) -> None:
    runs = 0

    async def count() -> CheckResult:
        nonlocal runs
        runs += 1
        await asyncio.sleep(0)
        return CheckResult(state=OK)

    shared = SharedCheck(count, late)
    await asyncio.gather(*(shared() for _ in range(20)))
    assert runs == 1


async def test_result_of_a_check_is_cached_for_a_second(
    late: CheckResult, clock: Callable[[float], None]
) -> None:
    results = iter([CheckResult(state=OK), CheckResult(state=DEGRADED)])

    async def changing() -> CheckResult:
        return next(results)

    shared = SharedCheck(changing, late)
    assert (await shared()).state is OK
    clock(0.9)
    assert (await shared()).state is OK
    clock(0.2)
    assert (await shared()).state is DEGRADED


async def test_check_that_hangs_has_the_result_given_for_it(
    late: CheckResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relaybox.telemetry._checks.CHECK_LIMIT_S", 0.001)

    async def hang() -> CheckResult:
        await asyncio.Event().wait()
        raise AssertionError

    assert await SharedCheck(hang, late)() is late


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    now_s = 1_000.0

    def advance(seconds: float) -> None:
        nonlocal now_s
        now_s += seconds

    monkeypatch.setattr("relaybox.telemetry._checks.time.monotonic", lambda: now_s)
    return advance
