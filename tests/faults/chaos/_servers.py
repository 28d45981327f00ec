"""Servers of a run: here PostgreSQL and one broker, each behind a proxy for the relays."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import asyncpg
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from pydantic import SecretStr
from relaybox.db import BACKBONE, migrate_up
from relaybox.local import LocalKafka, LocalPostgres, free_port
from relaybox.settings import KafkaSettings, PostgresSettings

from tests.faults.chaos._proxy import Proxy

TOPIC: Final = "domain-events"
#: A topic that does not exist, for poison rows.
MISSING_TOPIC: Final = "no-such-topic"
#: The topic's max.message.bytes; poison rows may be larger.
TOPIC_BYTES_MAX: Final = 65_536
PARTITIONS: Final = 8
#: A connection of asyncpg, which ships no types.
Connection = Any
#: Errors of statements and connections while PostgreSQL is unavailable; timeouts are OSErrors. The last
#: error occurs for a statement on a connection that breaks during it.
UNAVAILABLE_ERRORS: Final = (
    OSError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)
_ADMIN_S: Final = 30.0
_CONNECT_S: Final = 3.0
_STATEMENT_S: Final = 5.0


class ProxiedKafka(LocalKafka):
    """A broker with a second listener that advertises the port of a proxy.

    Kafka clients connect to the advertised address, so relays stay behind the proxy while the harness reads
    without it.
    """

    def __init__(self, data_dir: Path) -> None:
        """Describe the broker; :attr:`advertised_port` must be set before the first start."""
        super().__init__(data_dir)
        self.proxied_port = free_port()
        self.advertised_port = 0

    def _write_properties(self) -> Path:
        path = super()._write_properties()
        values = dict(line.split("=", 1) for line in path.read_text().splitlines() if "=" in line)
        values["listeners"] += f",PROXIED://{self.host}:{self.proxied_port}"
        values["advertised.listeners"] += f",PROXIED://{self.host}:{self.advertised_port}"
        values["listener.security.protocol.map"] += ",PROXIED:PLAINTEXT"
        values["inter.broker.listener.name"] = "PLAINTEXT"
        path.write_text("".join(f"{name}={value}\n" for name, value in values.items()))
        return path


@dataclass(frozen=True, kw_only=True)
class ChaosServers(ABC):
    """The servers of a run."""

    #: Logs, journal and timeline; kept after a violation.
    directory: Path

    @property
    @abstractmethod
    def server(self) -> LocalPostgres:
        """Return a server with the credentials of the primary."""

    @property
    @abstractmethod
    def port(self) -> int:
        """Return the port of the primary, without proxy or pooler, for the harness."""

    @property
    @abstractmethod
    def services_port(self) -> int:
        """Return the port at which services connect to PostgreSQL."""

    @abstractmethod
    def kafka_settings(self) -> KafkaSettings:
        """Return Kafka's address without the proxy, for the harness."""

    @abstractmethod
    def service_environment(self) -> dict[str, str]:
        """Return the environment of relays and consumers, with the addresses of both servers."""

    @property
    def bootstrap_servers(self) -> str:
        """Return Kafka's address without the proxy, for the harness."""
        return self.kafka_settings().bootstrap_servers

    def settings(self) -> PostgresSettings:
        """Return the settings of the database without proxy or pooler, for the services' role."""
        server = self.server
        return PostgresSettings(
            host=server.host,
            port=self.port,
            db=server.database,
            user=server.service_user,
            password=SecretStr(server.service_password),
            owner_user=server.owner_user,
            owner_password=SecretStr(server.owner_password),
        )

    async def connect(self, *, proxied: bool = False, superuser: bool = False) -> Connection:
        """Open a connection of the harness, as the services' role unless *superuser*.

        Raises:
            OSError: Or another of :data:`UNAVAILABLE_ERRORS`, while the server is unavailable.
        """
        server = self.server
        driver: Any = asyncpg
        return await driver.connect(
            host=server.host,
            port=self.services_port if proxied else self.port,
            database=server.database,
            user=server.superuser if superuser else server.service_user,
            password=server.superuser_password if superuser else server.service_password,
            ssl=False,
            timeout=_CONNECT_S,
            command_timeout=_STATEMENT_S,
            server_settings={"application_name": "chaos"},
        )


@dataclass(frozen=True, kw_only=True)
class SingleServers(ChaosServers):
    """One PostgreSQL and one broker, each behind a proxy."""

    postgres: LocalPostgres
    kafka: ProxiedKafka
    postgres_proxy: Proxy
    kafka_proxy: Proxy

    @property
    def server(self) -> LocalPostgres:
        return self.postgres

    @property
    def port(self) -> int:
        return self.postgres.port

    @property
    def services_port(self) -> int:
        return self.postgres_proxy.port

    def kafka_settings(self) -> KafkaSettings:
        return KafkaSettings(host=self.kafka.host, port=self.kafka.port)

    def service_environment(self) -> dict[str, str]:
        return {
            **self.postgres.settings(),
            "POSTGRES_PORT": str(self.postgres_proxy.port),
            "KAFKA_HOST": self.kafka.host,
            "KAFKA_PORT": str(self.kafka_proxy.port),
        }


@asynccontextmanager
async def start_single_servers(directory: Path) -> AsyncGenerator[SingleServers]:
    """Start the servers in *directory*, create schema and topic, and stop the servers at the end."""
    # Without fsync: no fault is a power failure.
    postgres = LocalPostgres(directory / "postgres", durable=False)
    kafka = ProxiedKafka(directory / "kafka")
    kafka_proxy = Proxy(kafka.proxied_port)
    try:
        await kafka_proxy.start()
        kafka.advertised_port = kafka_proxy.port
        await asyncio.gather(postgres.start(), kafka.start())
        postgres_proxy = Proxy(postgres.port)
        await postgres_proxy.start()
        servers = SingleServers(
            directory=directory,
            postgres=postgres,
            kafka=kafka,
            postgres_proxy=postgres_proxy,
            kafka_proxy=kafka_proxy,
        )
        await migrate_up(servers.settings(), BACKBONE)
        await asyncio.to_thread(_create_topic, servers.bootstrap_servers)
        yield servers
        await postgres_proxy.close()
    finally:
        await kafka_proxy.close()
        postgres.kill()
        kafka.kill()


def _create_topic(bootstrap_servers: str) -> None:
    wanted = NewTopic(
        TOPIC,
        num_partitions=PARTITIONS,
        replication_factor=1,
        config={"max.message.bytes": str(TOPIC_BYTES_MAX), "retention.ms": "-1", "retention.bytes": "-1"},
    )
    with AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 0}) as client:
        client.create_topics([wanted], operation_timeout=_ADMIN_S)[TOPIC].result(_ADMIN_S)
