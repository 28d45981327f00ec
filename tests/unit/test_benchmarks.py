"""What the benchmarks share, and the applications that they compare with Relaybox."""

import gc
import socket
import sys
from collections.abc import Generator
from pathlib import Path
from uuid import uuid4

import httpx2 as httpx
import pytest
from confluent_kafka import KafkaError, KafkaException
from relaybox.http import make_token
from relaybox.settings import JwtSettings, load_settings

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
#: Maven settings with a repository at which nothing listens.
NO_REPOSITORY = """\
<settings><mirrors>
  <mirror><mirrorOf>central</mirrorOf><url>http://127.0.0.1:1</url></mirror>
</mirrors></settings>
"""
SECRET = "a secret of 32 bytes at the least"


@pytest.fixture
def benchmark_path(monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    """Put the modules of the benchmarks on the import path for the test."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setenv("JWT_SECRET", SECRET)
    monkeypatch.setenv("POSTGRES_PASSWORD", "unused")
    yield
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(BENCHMARKS)):
            del sys.modules[name]


@pytest.mark.usefixtures("benchmark_path")
async def test_no_database_contestant_accepts_a_command() -> None:
    from _contestants import PREFIX, create_no_database

    token = make_token(load_settings(JwtSettings), "writer", 60)
    transport = httpx.ASGITransport(create_no_database())
    async with httpx.AsyncClient(transport=transport, base_url="http://bench") as client:
        answer = await client.post(
            f"{PREFIX}/{uuid4()}/commands",
            json={"command_type": "SubmitFeedback", "payload": {"feedback": "darker", "rating": 4}},
            headers={"Authorization": f"Bearer {token}"},
        )

    assert answer.status_code == 200, answer.text
    assert answer.json()["status"] == "COMPLETED"


@pytest.mark.usefixtures("benchmark_path")
def test_counting_proxy_leaves_no_pending_task(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """A connection may still be open when the proxy ends, for example that of a killed process."""
    from _process import counting_proxy

    with socket.create_server(("127.0.0.1", 0)) as server:
        with counting_proxy(server.getsockname()[1]) as (port, _counter):
            client = socket.create_connection(("127.0.0.1", port))
            accepted, _address = server.accept()
            client.sendall(b"Q")
            assert accepted.recv(1) == b"Q"
        gc.collect()
        client.close()
        accepted.close()
    assert (capfd.readouterr().err, caplog.messages) == ("", [])


@pytest.mark.usefixtures("benchmark_path")
def test_percentile_is_the_value_of_the_nearest_rank() -> None:
    from _load import percentile

    five, hundred = [5.0, 1.0, 4.0, 2.0, 3.0], [float(value) for value in range(1, 101)]
    assert [percentile(five, percent) for percent in (0, 20, 50, 99, 100)] == [1, 1, 3, 5, 5]
    assert [percentile(hundred, percent) for percent in (1, 50, 55, 99)] == [1, 50, 55, 99]


@pytest.mark.usefixtures("benchmark_path")
def test_only_the_end_of_a_partition_ends_a_digest() -> None:
    from _watch import is_end

    assert is_end(KafkaError(KafkaError._PARTITION_EOF))
    assert not is_end(None)
    with pytest.raises(KafkaException, match="_TRANSPORT"):
        is_end(KafkaError(KafkaError._TRANSPORT))


@pytest.mark.usefixtures("benchmark_path")
def test_short_form_downloads_no_jar_into_an_incomplete_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from _debezium import VERSION, connect_jars

    monkeypatch.setenv("RELAYBOX_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".m2").mkdir()
    (tmp_path / ".m2" / "settings.xml").write_text(NO_REPOSITORY)
    (tmp_path / "debezium" / VERSION).mkdir(parents=True)
    assert connect_jars(fetch=False) == []
