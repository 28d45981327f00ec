"""Health pages beside the work of a process, over a real socket."""

import asyncio
import signal
import socket

import httpx2 as httpx
import pytest
from prometheus_client import CollectorRegistry
from relaybox.telemetry import CheckResult, HealthAddressUnusable, HealthState, health_app, serve_health


async def well() -> CheckResult:
    return CheckResult(state=HealthState.OK)


APP = health_app({"itself": well}, CollectorRegistry())


async def test_pages_are_served_until_the_block_ends() -> None:
    async with serve_health(APP, host="127.0.0.1", port=0) as port, httpx.AsyncClient() as http:
        for page in ("healthz", "readyz", "metrics"):
            assert (await http.get(f"http://127.0.0.1:{port}/{page}")).status_code == 200
    async with httpx.AsyncClient() as http:
        with pytest.raises(httpx.ConnectError):
            await http.get(f"http://127.0.0.1:{port}/healthz")


async def test_signal_handlers_of_the_process_are_unchanged() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    async with serve_health(APP, host="127.0.0.1", port=0) as port, httpx.AsyncClient() as http:
        await http.get(f"http://127.0.0.1:{port}/healthz")
        assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


async def test_port_in_use_is_an_error_that_ends_nothing_else() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            HealthAddressUnusable, match=f"127.0.0.1:{port}.*in use; stop the process that uses this port"
        ):
            async with serve_health(APP, host="127.0.0.1", port=port):
                raise AssertionError


@pytest.mark.parametrize("host", ["nowhere.invalid", "999.1.1.1", "203.0.113.1"])
async def test_address_of_another_machine_is_not_reported_as_in_use(host: str) -> None:
    with pytest.raises(HealthAddressUnusable, match=f"{host}:0: .*set HEALTH_HOST to") as refused:
        async with serve_health(APP, host=host, port=0):
            raise AssertionError
    assert "stop" not in str(refused.value)


async def test_error_of_the_work_is_raised_and_stops_the_pages() -> None:
    with pytest.raises(ZeroDivisionError):
        async with serve_health(APP, host="127.0.0.1", port=0) as port:
            _ = 1 // 0
    with socket.create_server(("127.0.0.1", port)):
        pass
    assert "health" not in {task.get_name() for task in asyncio.all_tasks()}
