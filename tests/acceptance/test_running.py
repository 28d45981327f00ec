"""Start, stop and use the product as in a fresh clone."""

import re
import shlex
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from backend.running import NotRunning
from relaybox.local import free_port

from tests.acceptance.conftest import MakeProduct
from tests.fixtures.bounds import WAIT_S
from tests.fixtures.marks import needs_curl
from tests.fixtures.product import BACKEND, SESSIONS, Product, Writer, wait_for

#: Guaranteed duration of a stop by Ctrl-C.
STOP_S = 10.0


@pytest.fixture(scope="module")
def own(make_product: MakeProduct) -> Iterator[Product]:
    """Return a product that the tests of this file stop and start in their order."""
    product = make_product("own")
    product.start("make", "run")
    yield product
    product.stop()


@needs_curl
def test_start_prints_its_address_and_a_working_curl_command(own: Product, behind_pgbouncer: bool) -> None:
    text = wait_for("the last line", lambda: own.log_text() if "Ctrl-C" in own.log_text() else None)
    url = own.environment["API_URL"]
    lines = [line.partition("│ ")[2].strip() for line in text.splitlines()]
    assert f"API    {url}{SESSIONS}" in lines
    assert f"docs   {url}/docs" in lines
    for part in (
        *(("kafka",) if behind_pgbouncer else ("postgres", "kafka")),
        *("api-gateway", "message-relay", "concept-agent", "workspace-worker"),
    ):
        assert re.search(rf"^{part} +│ ready in \d+ ms", text, re.MULTILINE)
    [command] = [shlex.split(line) for line in lines if line.startswith("curl ")]
    # The command is on one line: copying a second line would include the prefix "relaybox │".
    created = own.run(*command, "--silent", "--noproxy", "*")
    assert '"current_stage":"CONCEPT_SELECTION"' in created.stdout, created.stderr


def test_make_env_gives_a_shell_the_settings(own: Product) -> None:
    shell = 'eval "$(make -s env)" && echo "$API_URL $DEV_TOKEN $JWT_SECRET $POSTGRES_PASSWORD $KAFKA_PORT"'
    told = own.run("bash", "-c", shell)
    known = own.environment
    names = ("API_URL", "DEV_TOKEN", "JWT_SECRET", "POSTGRES_PASSWORD", "KAFKA_PORT")
    assert told.stdout.split() == [known[name] for name in names], told.stderr
    token = own.run("bash", "-c", 'eval "$(make -s env)" && relaybox token --sub ann').stdout
    with Writer(known["API_URL"], token.strip()) as client:
        assert client.get(SESSIONS).json()["items"] == []


def test_second_product_on_the_same_data_is_refused(own: Product) -> None:
    second = own.run(BACKEND, "run", API_PORT=str(free_port()))
    assert second.returncode == 1
    assert "a product runs on" in second.stderr
    assert "RELAYBOX_DATA_DIR" in second.stderr
    assert "Traceback" not in second.stderr + second.stdout


def test_a_taken_port_names_its_owner_and_the_setting(own: Product, tmp_path: Path) -> None:
    second = own.run(BACKEND, "run", RELAYBOX_DATA_DIR=str(tmp_path / "data"))
    assert second.returncode == 1
    assert f"Port {own.changes['API_PORT']} is taken by python" in second.stderr
    assert "API_PORT" in second.stderr
    assert "Traceback" not in second.stderr + second.stdout


def test_ctrl_c_stops_all_services_and_keeps_the_data(own: Product) -> None:
    token = own.environment["DEV_TOKEN"]
    with Writer(own.environment["API_URL"], token) as writer:
        session = writer.create()
        with writer.follow(session) as events:
            assert next(events).id == 1
            began_s = time.monotonic()
            # make ends by the signal itself once its child has ended.
            assert own.stop(signal.SIGINT) == -signal.SIGINT, own.log_text()
            assert time.monotonic() - began_s < STOP_S
    assert own.processes() == []
    assert "Traceback" not in own.log_text()
    with pytest.raises(NotRunning):
        _ = own.environment
    own.start("make", "run")
    with Writer(own.environment["API_URL"], token) as writer:
        assert writer.state(session)["version"] == 1


def test_sigterm_to_make_alone_stops_all_services(own: Product) -> None:
    own.stop_leader(signal.SIGTERM)
    wait_for("the end of all processes", lambda: None if own.processes() else True)
    asked = own.run("make", "-s", "env")
    assert asked.returncode != 0
    assert asked.stdout == ""
    assert "make run" in asked.stderr


def test_unusable_data_directory_error_says_what_to_do(own: Product, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    told = own.run(BACKEND, "run", RELAYBOX_DATA_DIR=str(tmp_path / "file" / "data"))
    assert told.returncode == 1
    assert "RELAYBOX_DATA_DIR" in told.stderr
    assert "Traceback" not in told.stderr + told.stdout


def test_each_invalid_setting_has_an_error_line(own: Product) -> None:
    wrong = {"API_PORT": "many", "API_WORKERS": "0"}
    told = own.run(sys.executable, "-m", "backend", SERVICE_TYPE="api-gateway", **wrong)
    assert told.returncode == 1
    lines = told.stderr.splitlines()
    assert len(lines) == 2
    assert all(any(name in line for line in lines) for name in wrong)


@pytest.mark.parametrize(
    "target", ["run", "demo", "demo-workspace", "env", "test", "test-all", "lint", "bench"]
)
def test_make_help_lists_the_run_target(own: Product, target: str) -> None:
    assert re.search(rf"^  make {target} +\S", own.run("make", "help").stdout, re.MULTILINE)


def test_api_without_kafka_stays_ready_and_accepts_commands(product: Product) -> None:
    with product.run_second_api(KAFKA_PORT=str(free_port())) as (api, ready):
        assert ready.status_code == 200
        assert ready.json()["status"] == "degraded"
        assert ready.json()["checks"]["postgres"]["status"] == "ok"
        session = api.create()
        assert api.command(session, "RequestConceptGeneration").status_code == 202


def test_api_closes_a_connection_without_a_request(product: Product) -> None:
    with product.run_second_api(HTTP_HEAD_TIMEOUT_S="0.5", API_WORKERS="2") as (api, _):
        address = (api.base_url.host, api.base_url.port or 0)
        with socket.create_connection(address, WAIT_S) as silent:
            assert silent.recv(1) == b""


def test_api_without_postgresql_sends_retry_after(product: Product) -> None:
    with product.run_second_api(POSTGRES_PORT=str(free_port())) as (api, ready):
        assert ready.status_code == 503
        answer = api.post(SESSIONS, json={})
        assert (answer.status_code, answer.json()["error_code"]) == (503, "DATABASE_UNAVAILABLE")
        assert int(answer.headers["retry-after"]) > 0
