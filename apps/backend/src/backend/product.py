"""Run the whole product on one machine: ``backend run``.

If ``POSTGRES_HOST`` is set, the product uses that PostgreSQL server; otherwise it starts a local one. The
same applies to ``KAFKA_HOST`` and Kafka. The data of a local server remain when the product stops. Each
server that the product starts and each service is a process of its own, called a part.
"""

import asyncio
import os
import secrets
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

import httpx2
from relaybox.db import migrate_up
from relaybox.http import make_token
from relaybox.local import (
    LocalKafka,
    LocalPostgres,
    Part,
    PartStatus,
    ServerPart,
    Start,
    Supervisor,
    free_port,
    require_free_port,
)
from relaybox.outbox import OutboxSettings
from relaybox.settings import (
    JwtSettings,
    KafkaSettings,
    RelaySettings,
    TaskSettings,
    load_settings,
)
from relaybox.topics import Replication, ensure_topics

from backend.api import PREFIX
from backend.genesis.muse import MuseSettings
from backend.migrations import ALL
from backend.running import (
    DataDirectoryUnusable,
    ProductSettings,
    RunningProduct,
    lock_data_directory,
    write_private,
)
from backend.settings import DATABASE, ApiSettings, GenesisSettings, ProductPostgresSettings, ServiceType

__all__ = ("run_product",)

_READY_PAUSE_S: Final = 0.05
_TOKEN_S: Final = 30 * 86_400
#: Variables that configure connections to servers of the user, for example TLS. A text that is not the name
#: of a variable is the beginning of several names.
_CONNECTION_SETTINGS: Final = (
    "KAFKA_SASL_",
    "KAFKA_SECURITY_",
    "KAFKA_SSL_",
    "POSTGRES_DIRECT_",
    "POSTGRES_POOLER",
    "POSTGRES_SSL_",
    "POSTGRES_TARGET_SESSION_ATTRS",
)


@dataclass(kw_only=True, slots=True)
class _Product:
    """Starts the servers, and then the services with the addresses of the servers in their environment."""

    settings: ProductSettings
    running: RunningProduct
    supervisor: Supervisor
    environment: dict[str, str] = field(default_factory=lambda: dict(os.environ))

    async def compose(self, start: Start) -> None:
        """Start the servers, create the schema and topics, then start the services."""
        api = load_settings(ApiSettings)
        self.environment["JWT_SECRET"] = self.environment.get("JWT_SECRET") or _stored_secret(
            self.settings.data_dir
        )
        # Check the settings before the start: a service with an invalid setting would be restarted endlessly.
        os.environ["JWT_SECRET"] = self.environment["JWT_SECRET"]
        for kind in (JwtSettings, MuseSettings, RelaySettings, TaskSettings, OutboxSettings, GenesisSettings):
            load_settings(kind)
        require_free_port(api.api_port, setting="API_PORT")
        await asyncio.gather(self._start_postgres(start), self._start_kafka(start))
        await self._prepare()
        await asyncio.gather(
            *(start(self._part(service, url)) for service, url in self._addresses(api).items())
        )
        self._announce(api)

    async def _start_postgres(self, start: Start) -> None:
        if self.environment.get("POSTGRES_HOST"):
            self.supervisor.write_line(
                "postgres", f"using {self.environment['POSTGRES_HOST']} from the environment"
            )
            return
        server = LocalPostgres(self.settings.data_dir / "postgres", database=DATABASE)
        await start(ServerPart(name="postgres", server=server))
        self.environment |= server.settings()

    async def _start_kafka(self, start: Start) -> None:
        if self.environment.get("KAFKA_HOST"):
            self.supervisor.write_line(
                "kafka", f"using {self.environment['KAFKA_HOST']} from the environment"
            )
            return
        server = LocalKafka(self.settings.data_dir / "kafka")
        await start(ServerPart(name="kafka", server=server))
        self.environment |= server.settings()

    async def _prepare(self) -> None:
        """Migrate the schema and create the topics."""
        os.environ.update(self.environment)
        for revision in await migrate_up(load_settings(ProductPostgresSettings), *ALL):
            self.supervisor.write_line("postgres", f"migrated to {revision}")
        topics = load_settings(OutboxSettings).declared()
        replication = Replication.of(load_settings(RelaySettings))
        for topic in await ensure_topics(load_settings(KafkaSettings), topics, replication=replication):
            self.supervisor.write_line("kafka", f"created the topic {topic}")

    def _addresses(self, api: ApiSettings) -> Mapping[ServiceType, str]:
        return {
            ServiceType.API_GATEWAY: _url(api),
            ServiceType.MESSAGE_RELAY: f"http://127.0.0.1:{free_port()}",
            ServiceType.CONCEPT_AGENT: f"http://127.0.0.1:{free_port()}",
            ServiceType.WORKSPACE_WORKER: f"http://127.0.0.1:{free_port()}",
        }

    def _part(self, service: ServiceType, url: str) -> Part:
        port = url.rpartition(":")[2]
        return Part(
            name=service,
            argv=(sys.executable, "-m", "backend"),
            env={**self.environment, "SERVICE_TYPE": service, "HEALTH_PORT": port, "LOG_JSON": "false"},
            ready=lambda: _wait_until_ready(url),
        )

    def _announce(self, api: ApiSettings) -> None:
        url = _url(api)
        token = make_token(load_settings(JwtSettings), "writer", _TOKEN_S)
        self.running.announce(
            {
                "API_URL": url,
                "DEV_TOKEN": token,
                **_shared_settings(),
                **_connection_settings(self.environment),
            }
        )
        down = [part.name for part in self.supervisor.parts() if part.keeps_crashing]
        for line in (
            "",
            f"Relaybox is ready, without {', '.join(down)}: see `backend status`."
            if down
            else "Relaybox is ready.",
            f"  API    {url}{PREFIX}",
            f"  docs   {url}/docs",
            f"  token  {token}",
            "",
            "Try it:",
            # One line: each printed line begins with a prefix, which a user would copy from a second line.
            f"  curl -X POST {url}{PREFIX} -H 'Content-Type: application/json' "
            f"-H 'Authorization: Bearer {token}' -d '{{}}'",
            "",
            "`make demo` and `make demo-workspace` play whole stories; Ctrl-C stops everything.",
        ):
            self.supervisor.write_line("relaybox", line)


async def run_product(settings: ProductSettings) -> int:
    """Run all parts in the foreground until the process gets a signal.

    Returns:
        The exit code: 1 if a part had crashed three or more times in a row when the signal came, else 0.

    Raises:
        RelayboxError: A server, a port, the schema or a topic is not available; the message says what to do.
    """
    with lock_data_directory(settings) as running:

        def report(parts: tuple[PartStatus, ...]) -> None:
            try:
                running.report([asdict(part) for part in parts])
            except OSError as error:
                # A full disk must not stop parts that still work.
                supervisor.write_line(
                    "relaybox",
                    f"the states for `backend status` cannot be stored: {error}; free space on that disk",
                )

        supervisor = Supervisor(on_change=report)
        product = _Product(settings=settings, running=running, supervisor=supervisor)
        return await product.supervisor.run(product.compose)


def _url(api: ApiSettings) -> str:
    anywhere = api.api_host in ("0.0.0.0", "::")  # noqa: S104 - compared, not bound
    return f"http://{'127.0.0.1' if anywhere else api.api_host}:{api.api_port}"


def _shared_settings() -> dict[str, str]:
    """Return the settings with which other programs on this machine use the servers and create tokens."""
    postgres, kafka = load_settings(ProductPostgresSettings), load_settings(KafkaSettings)
    jwt, owner = load_settings(JwtSettings), load_settings(ProductPostgresSettings).as_owner()
    return {
        "POSTGRES_HOST": postgres.host,
        "POSTGRES_PORT": str(postgres.port),
        "POSTGRES_DB": postgres.db,
        "POSTGRES_SCHEMA": postgres.schema_name,
        "POSTGRES_USER": postgres.user,
        "POSTGRES_PASSWORD": postgres.password.get_secret_value(),
        "POSTGRES_OWNER_USER": owner.user,
        "POSTGRES_OWNER_PASSWORD": owner.password.get_secret_value(),
        "KAFKA_HOST": kafka.host,
        "KAFKA_PORT": str(kafka.port),
        "JWT_SECRET": jwt.secret.get_secret_value(),
        "JWT_ISSUER": jwt.issuer,
        "JWT_AUDIENCE": jwt.audience,
    }


def _connection_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of *environment* that configure connections to servers of the user (TLS, …)."""
    return {
        name: value for name, value in environment.items() if name.startswith(_CONNECTION_SETTINGS) and value
    }


async def _wait_until_ready(url: str) -> None:
    async with httpx2.AsyncClient(base_url=url, trust_env=False) as client:
        while True:
            try:
                if (await client.get("/readyz")).is_success:
                    return
            except httpx2.TransportError:
                pass
            await asyncio.sleep(_READY_PAUSE_S)


def _stored_secret(data_dir: Path) -> str:
    """Return the secret that signs development tokens; create and store one at the first start.

    With a stored secret, tokens stay valid after a restart.

    Raises:
        DataDirectoryUnusable: The secret cannot be stored.
    """
    file = data_dir / "jwt-secret"
    try:
        if not file.exists() or not file.read_text():
            write_private(file, secrets.token_urlsafe(48))
        return file.read_text()
    except OSError as error:
        raise DataDirectoryUnusable(data_dir, error) from error
