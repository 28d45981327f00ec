"""The example applications run as their READMEs and pages say, from wheels, on real servers."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    ConsumerGroupTopicPartitions,
    KafkaError,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient
from relaybox.db import Database
from relaybox.local import free_port
from relaybox.settings import KafkaSettings, PostgresSettings

from tests.fixtures.bounds import WAIT_S
from tests.fixtures.doc_files import blocks_of, typed_script
from tests.fixtures.marks import needs_curl
from tests.fixtures.waiting import eventually
from tests.packaging.conftest import ROOT, Environment

EXAMPLES = ROOT / "examples"
APP_LINES_MAX = 60
#: The pages that build the bank, in the order of reading.
BANK_PAGES = ("write-a-domain", "write-a-consumer", "write-a-flow")
DOMAIN_EVENTS = "domain-events"
_SCRIPT_S = 600  # three pages, also on a busy machine


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(
        rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )


@pytest.fixture
def variables(
    environment: Environment, empty_postgres_settings: PostgresSettings, kafka_settings: KafkaSettings
) -> dict[str, str]:
    """Return the variables of a shell with running servers and an empty database."""
    postgres, owner = empty_postgres_settings, empty_postgres_settings.as_owner()
    return environment.variables() | {
        "POSTGRES_HOST": postgres.host,
        "POSTGRES_PORT": str(postgres.port),
        "POSTGRES_DB": postgres.db,
        "POSTGRES_USER": postgres.user,
        "POSTGRES_PASSWORD": postgres.password.get_secret_value(),
        "POSTGRES_OWNER_USER": owner.user,
        "POSTGRES_OWNER_PASSWORD": owner.password.get_secret_value(),
        "KAFKA_HOST": kafka_settings.host,
        "KAFKA_PORT": str(kafka_settings.port),
        "HEALTH_PORT": str(free_port()),
        "RELAY_POLL_INTERVAL": "0.2",
    }


def copy_of(example: str, target: Path, changes: dict[str, str]) -> Path:
    """Copy an example out of the clone, with *changes* of names that would collide with other tests."""
    place = target / example
    shutil.copytree(EXAMPLES / example, place)
    for file in (path for path in place.rglob("*") if path.suffix in {".py", ".md"}):
        text = file.read_text(encoding="utf-8")
        for old, new in changes.items():
            text = text.replace(old, new)
        file.write_text(text, encoding="utf-8")
    return place


def follow_page(place: Path, variables: dict[str, str]) -> str:
    """Run the steps of the README after its installation and return the output."""
    install, *steps = blocks(place / "README.md", "bash")
    *_, shell = install.splitlines()
    return type_into(shell, "".join(steps), place, variables)


def type_into(shell: str, script: str, place: Path, variables: dict[str, str]) -> str:
    """Run *script* in the shell that the command *shell* opens, and return the output."""
    # Job control, as in an interactive shell.
    typed = ["bash", "-c", f"set -em\n{script}"]
    done = subprocess.run(
        [*shell.split(), "--", *typed],
        cwd=place,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=_SCRIPT_S,
    )
    log = place / "log"
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{log.exists() and log.read_text()}"
    return done.stdout


def without_ids(text: str) -> str:
    """Format output as the READMEs show it."""
    return re.sub(r'"((?:\w+_)?id)":"[0-9a-f-]{32,36}"', r'"\1":"5f0c…"', text)


def messages(settings: KafkaSettings, topic: str) -> Iterator[Message]:
    """Return all committed messages of *topic*."""
    consumer = Consumer(
        {
            "bootstrap.servers": settings.bootstrap_servers,
            "group.id": "look",
            "enable.auto.commit": False,
            # The end offset is not that of the last message: control records have offsets too.
            "enable.partition.eof": True,
        }
    )
    try:
        for number in consumer.list_topics(topic, timeout=WAIT_S).topics[topic].partitions:
            consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING)])
            while (message := consumer.poll(WAIT_S)) is not None and message.error() is None:
                yield message
            assert message is not None
            assert message.error().code() == KafkaError._PARTITION_EOF
    finally:
        consumer.close()


def headers_of(message: Message) -> dict[str, str]:
    return {name: value.decode() for name, value in message.headers() or []}


async def rows(settings: PostgresSettings, query: str, *arguments: Any) -> list[dict[str, Any]]:
    database = Database(settings.as_owner())
    async with database.connection() as connection:
        found = [dict(row) for row in await connection.fetch(query, *arguments)]
    await database.close()
    return found


@contextmanager
def running(*words: str, cwd: Path, env: dict[str, str]) -> Iterator[None]:
    with subprocess.Popen(words, cwd=cwd, env=env, stdout=subprocess.DEVNULL) as process:
        yield
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_S) == 0


def wait_until_read(settings: KafkaSettings, group: str, message: Message) -> None:
    """Wait until *group* has committed the offset of *message*."""
    deadline = time.monotonic() + WAIT_S
    with AdminClient({"bootstrap.servers": settings.bootstrap_servers}) as admin:
        while time.monotonic() < deadline:
            found = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])[group]
            offsets = {(at.topic, at.partition): at.offset for at in found.result(WAIT_S).topic_partitions}
            if offsets.get((message.topic(), message.partition()), -1) > message.offset():
                return
    pytest.fail(f"{group} did not come to {message.topic()} {message.partition()} {message.offset()}")


def publish_again(settings: KafkaSettings, message: Message) -> Message:
    """Publish a message again, as a relay does that was killed before marking the row; return the copy."""
    copies: list[Message] = []
    producer = Producer({"bootstrap.servers": settings.bootstrap_servers})
    producer.produce(
        message.topic(),
        message.value(),
        message.key(),
        headers=message.headers(),
        on_delivery=lambda _error, copy: copies.append(copy),
    )
    assert producer.flush(WAIT_S) == 0
    return copies[0]


@needs_curl
async def test_orders_example_runs_as_its_readme_says(
    variables: dict[str, str],
    empty_postgres_settings: PostgresSettings,
    kafka_settings: KafkaSettings,
    tmp_path: Path,
) -> None:
    ports = {"8020": str(free_port()), "8002": str(free_port())}
    place = copy_of("orders", tmp_path, ports | {"warehouse": f"warehouse-{os.getpid()}"})
    seen = follow_page(place, variables)
    (expected,) = blocks(place / "README.md", "text")
    assert without_ids(seen) == expected
    state = json.loads(seen.splitlines()[-1])
    environment = variables | {"JWT_SECRET": "s" * 32, "HEALTH_PORT": str(free_port())}

    async def all_published() -> bool:
        return not await rows(empty_postgres_settings, "SELECT 1 FROM event_outbox WHERE status <> 'SENT'")

    # The page stops its relay, perhaps before the relay has published the last event.
    if not await all_published():
        with running("relaybox", "relay", "run", cwd=place, env=environment):
            await eventually("all events are published", all_published)
    published = [one for one in messages(kafka_settings, DOMAIN_EVENTS) if one.key() == state["id"].encode()]
    created, confirmed = [headers_of(one) for one in published]
    assert created["ce_specversion"] == "1.0"
    assert (created["ce_type"], confirmed["ce_type"]) == (
        "Shop.Order.Created",
        "Shop.Order.ReservationConfirmed",
    )
    answer = json.loads(published[1].value())
    assert answer["causation_id"] == created["ce_id"]
    assert answer["correlation_id"] == json.loads(published[0].value())["correlation_id"]

    copy = publish_again(kafka_settings, published[0])
    consumer = ("relaybox", "consumer", "run", "app:reserve")
    with running(*consumer, cwd=place, env=environment):
        wait_until_read(kafka_settings, f"warehouse-{os.getpid()}", copy)
    events = "SELECT event_type FROM domain_events WHERE aggregate_id = $1"
    assert len(await rows(empty_postgres_settings, events, state["id"])) == 2


@needs_curl
async def test_outbox_example_publishes_committed_events(
    variables: dict[str, str],
    empty_postgres_settings: PostgresSettings,
    kafka_settings: KafkaSettings,
    topic: str,
    tmp_path: Path,
) -> None:
    changes = {"8020": str(free_port()), DOMAIN_EVENTS: topic, '"watch"': f'"watch-{topic}"'}
    place = copy_of("outbox_only", tmp_path, changes)
    seen = follow_page(place, variables | {"OUTBOX_TOPICS": topic})
    (expected,) = blocks(place / "README.md", "text")
    # The output of `relaybox migrate up` and `alembic check` depends on the state before.
    assert without_ids(seen).endswith(expected)
    assert "No new upgrade operations detected." in seen
    invoice = json.loads(seen.splitlines()[-3])["id"]

    (message,) = messages(kafka_settings, topic)
    assert message.key() == invoice.encode()
    assert headers_of(message)["ce_type"] == "Billing.Invoice.Created"
    outbox = await rows(empty_postgres_settings, "SELECT key, status::text FROM event_outbox")
    assert outbox == [{"key": invoice, "status": "SENT"}]
    versions = (
        "SELECT version_num FROM alembic_version UNION ALL SELECT version_num FROM relaybox_alembic_version"
    )
    assert len(await rows(empty_postgres_settings, versions)) == 2


def bank_names() -> dict[str, str]:
    """Return new names for the ports, the events and the consumer groups of the bank."""
    mark = uuid.uuid4().hex
    names = ("approvals", "balances", "transfers")
    groups = {f'group="{name}"': f'group="{name}-{mark}"' for name in names}
    ports = {port: str(free_port()) for port in ("8030", "8002", "8003")}
    return {"Bank.Account": f"Bank{mark}.Account"} | groups | ports


def shown(seen: str) -> str:
    """Format output of the bank as its pages show it."""
    return re.sub(r"Bank[0-9a-f]{32}\.", "Bank.", without_ids(seen))


@needs_curl
def test_bank_example_runs_as_its_readme_says(variables: dict[str, str], tmp_path: Path) -> None:
    (expected,) = blocks(EXAMPLES / "bank/README.md", "text")
    place = copy_of("bank", tmp_path, bank_names())
    assert shown(follow_page(place, variables)) == expected


@needs_curl
def test_bank_pages_run_from_an_empty_directory(variables: dict[str, str], tmp_path: Path) -> None:
    install, *steps = blocks_of(*(ROOT / f"docs/how-to/{name}.md" for name in BANK_PAGES))
    script = typed_script(steps)
    for old, new in bank_names().items():
        script = script.replace(old, new)
    seen = type_into(install.text.splitlines()[-1], script, tmp_path, variables)
    assert shown(seen) == "".join(block.text for block in steps if block.language == "text")


def test_orders_example_has_at_most_60_lines() -> None:
    lines = (EXAMPLES / "orders/app.py").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= APP_LINES_MAX


def test_diff_of_the_readme_is_complete(tmp_path: Path) -> None:
    place = copy_of("outbox_only", tmp_path, {})
    (diff,) = blocks(place / "README.md", "diff")
    patch = ["git", "apply", "--reverse", "-p0", "-"]
    subprocess.run(patch, cwd=place, input=diff, text=True, check=True, capture_output=True)
    for file in place.rglob("*.py"):
        assert "relaybox" not in file.read_text(encoding="utf-8").replace("nothing of Relaybox", "")


def test_readme_of_the_library_quotes_the_example() -> None:
    example = (EXAMPLES / "orders/app.py").read_text(encoding="utf-8")
    page = (ROOT / "packages/relaybox/README.md").read_text(encoding="utf-8")
    shown = re.findall(r"^  ```python\n(.*?)^  ```", page, re.DOTALL | re.MULTILINE)
    assert shown
    assert all(re.sub(r"^  ", "", one, flags=re.MULTILINE) in example for one in shown)
