"""``relaybox relay run``, ``consumer run`` and ``local`` on real servers."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from relaybox.local import free_port
from relaybox.operations import GroupUnknown, consumer_lag
from relaybox.settings import KafkaSettings, PostgresSettings

from tests.fixtures.bounds import WAIT_S
from tests.fixtures.events import make_event, publish
from tests.fixtures.waiting import eventually

RELAYBOX = (sys.executable, "-c", "from relaybox.cli import app; app()")
HANDLER = """
from relaybox.consumers import subscribe


@subscribe("Suite.Counter.Created", group="suite")
async def handle(event, unit):
    pass

nothing = None
"""
#: Prints how many handlers are running.
COUNTING_HANDLER = """
from relaybox.consumers import subscribe
from sqlalchemy import text

running = 0


@subscribe("Genesis.Session.ConceptGenerationRequested", group="GROUP")
async def handle(event, unit):
    global running
    running += 1
    print(running, flush=True)
    await unit.db.execute(text("SELECT pg_sleep(0.05)"))
    running -= 1
"""


@pytest.fixture
def variables(postgres_settings: PostgresSettings, kafka_settings: KafkaSettings) -> dict[str, str]:
    return os.environ | {
        "POSTGRES_HOST": postgres_settings.host,
        "POSTGRES_PORT": str(postgres_settings.port),
        "POSTGRES_DB": postgres_settings.db,
        "POSTGRES_USER": postgres_settings.user,
        "POSTGRES_PASSWORD": postgres_settings.password.get_secret_value(),
        "KAFKA_HOST": kafka_settings.host,
        "KAFKA_PORT": str(kafka_settings.port),
        "HEALTH_PORT": str(free_port()),
        "HTTP_HEAD_TIMEOUT_S": "0.5",
        "COLUMNS": "200",
    }


@pytest.fixture
def app_dir(tmp_path: Path) -> Path:
    (tmp_path / "handlers.py").write_text(HANDLER)
    return tmp_path


def refused(*arguments: str, cwd: Path, env: dict[str, str]) -> str:
    done = subprocess.run(
        [*RELAYBOX, *arguments], cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=WAIT_S
    )
    assert done.returncode != 0
    return done.stderr


@pytest.mark.parametrize("arguments", [("relay", "run"), ("consumer", "run", "handlers:handle")])
def test_service_serves_health_and_ends_on_sigterm(
    arguments: tuple[str, ...], variables: dict[str, str], app_dir: Path, topic: str
) -> None:
    service = [*RELAYBOX, *arguments, *(["--topic", topic] if "consumer" in arguments else [])]
    with subprocess.Popen(service, cwd=app_dir, env=variables, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if b"health pages served" in line:
                break
        with urllib.request.urlopen(f"http://127.0.0.1:{variables['HEALTH_PORT']}/readyz") as answer:
            assert answer.status == 200
        with socket.create_connection(("127.0.0.1", int(variables["HEALTH_PORT"])), WAIT_S) as silent:
            assert silent.recv(1) == b""
        for line in process.stderr:
            # The health server starts before the work and the signal handlers.
            if b"relay lanes changed" in line or b"partitions assigned" in line:
                break
        process.send_signal(signal.SIGTERM)
        process.stderr.read()
        assert process.wait(WAIT_S) == 0


@pytest.mark.parametrize(
    ("options", "printed"),
    [(["--concurrency", "1"], ["1", "1", "1", "1"]), (["--start", "latest"], [])],
    ids=["concurrency", "start"],
)
def test_consumer_run_passes_its_options(
    options: list[str],
    printed: list[str],
    variables: dict[str, str],
    kafka_settings: KafkaSettings,
    topic: str,
    tmp_path: Path,
) -> None:
    (tmp_path / "handlers.py").write_text(COUNTING_HANDLER.replace("GROUP", topic))
    publish(kafka_settings, topic, [make_event() for _ in range(4)])
    program = [*RELAYBOX, "consumer", "run", "handlers:handle", "--topic", topic, *options]

    async def at_the_end() -> bool:
        try:
            found = await consumer_lag(kafka_settings, topic)
        except GroupUnknown:
            return False
        positions = [(each.committed, each.end) for each in found.partitions if each.end]
        return bool(positions) and all(committed == end for committed, end in positions)

    with subprocess.Popen(
        program, cwd=tmp_path, env=variables, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        asyncio.run(eventually("all offsets committed", at_the_end))
        process.terminate()
        output, _ = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0
    assert output.split() == printed


@pytest.mark.parametrize("option", [("--concurrency", "0"), ("--start", "now")])
def test_consumer_run_refuses_wrong_options(
    option: tuple[str, str], variables: dict[str, str], app_dir: Path
) -> None:
    message = refused("consumer", "run", "handlers:handle", *option, cwd=app_dir, env=variables)
    assert f"Invalid value for '{option[0]}'" in message


def test_health_port_in_use_is_one_line(
    variables: dict[str, str], kafka_settings: KafkaSettings, tmp_path: Path
) -> None:
    taken = variables | {"HEALTH_PORT": str(kafka_settings.port)}
    message = refused("relay", "run", cwd=tmp_path, env=taken)
    assert message.startswith("error: cannot serve health")
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("handlers:nothing", "handlers:nothing is not declared with @subscribe; decorate the function"),
        (
            "handlers:missing",
            "handlers has no missing; write the name of a function declared with @subscribe",
        ),
        ("handlers", "'handlers' does not name an object in a module; write module:name"),
        (".handlers:handle", "'.handlers:handle' does not name an object in a module; write module:name"),
        (
            "elsewhere:handle",
            "there is no module elsewhere; run the command in the directory that contains it",
        ),
        ("elsewhere.part:handle", "there is no module elsewhere; run the command in the directory"),
        ("handlers.py:handle", "write the module's name, not its file: handlers:handle"),
    ],
)
def test_name_that_is_not_a_handler_is_refused(
    name: str, message: str, variables: dict[str, str], app_dir: Path
) -> None:
    assert message in refused("consumer", "run", name, cwd=app_dir, env=variables)


def test_local_runs_a_command_with_ready_servers(tmp_path: Path) -> None:
    code = (
        "import os, sys\n"
        "from relaybox.cli import app\n"
        "print(len(os.environ['JWT_SECRET']) >= 32, flush=True)\n"
        "sys.argv[1:] = ['migrate', 'check']\n"
        "try:\n    app()\nfinally:\n    os._exit(7)"
    )
    arguments = [*RELAYBOX, "local", "--data-dir", str(tmp_path / "data"), "--", sys.executable, "-c", code]
    done = subprocess.run(
        arguments,
        cwd=tmp_path,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.stdout == "True\nthe schema is up to date\n", done.stderr
    assert done.returncode == 7


def test_local_names_a_command_that_does_not_start(variables: dict[str, str], tmp_path: Path) -> None:
    message = refused("local", "--", "no-such-program", cwd=tmp_path, env=variables)
    assert "no-such-program: No such file or directory" in message


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_local_forwards_signals_to_the_command(
    number: signal.Signals, variables: dict[str, str], tmp_path: Path
) -> None:
    wait = "import sys; print('here', flush=True); sys.stdin.read()"
    arguments = [*RELAYBOX, "local", "--", sys.executable, "-c", wait]
    with subprocess.Popen(
        arguments,
        cwd=tmp_path,
        env=variables,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        # A test run under nohup ignores SIGHUP, and children inherit that.
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"here\n"
        process.send_signal(number)
        assert process.wait(WAIT_S) == 128 + number
