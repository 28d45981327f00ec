"""The titles of services in `ps`."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from relaybox.local import free_port

from tests.fixtures.bounds import WAIT_S
from tests.fixtures.waiting import eventually

CHILDREN = "/proc/{pid}/task/{pid}/children"


@contextmanager
def service(service_type: str, **environment: str) -> Iterator[int]:
    """Run a service without servers; yield its process id."""
    given = {
        "SERVICE_TYPE": service_type,
        "POSTGRES_PORT": str(free_port()),
        "KAFKA_PORT": str(free_port()),
        "HEALTH_PORT": str(free_port()),
        "API_PORT": str(free_port()),
        "JWT_SECRET": "a secret of 32 bytes at the least",
        **environment,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "backend"], env={**os.environ, **given}, stdout=subprocess.DEVNULL
    )
    try:
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(WAIT_S)


def children(pid: int) -> list[str]:
    return Path(CHILDREN.format(pid=pid)).read_text().split()


def title(pid: int | str) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("service_type", ["message-relay", "concept-agent", "workspace-worker"])
async def test_process_title_is_the_role(service_type: str) -> None:
    with service(service_type) as pid:

        async def is_called() -> bool:
            return title(pid) == f"python -m backend {service_type}"

        await eventually("the title", is_called)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_process_title_of_api_workers_says_worker() -> None:
    with service("api-gateway", API_WORKERS="2") as pid:

        async def are_called() -> bool:
            titles = [title(child) for child in children(pid)]
            return titles.count("python -m backend api-gateway worker") == 2

        await eventually("two workers", are_called)
        assert title(pid) == "python -m backend api-gateway"
