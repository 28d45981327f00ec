"""The whole product on one machine: ``backend run``.

PostgreSQL and Kafka come from the environment where ``POSTGRES_HOST`` or ``KAFKA_HOST`` is set,
else they are local ones whose data outlives the process. Every part is a process of its own.
"""

import asyncio
import json
import os
import secrets
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx
from pydantic_settings import BaseSettings, SettingsConfigDict
from relaybox.db import migrate_up
from relaybox.errors import RelayboxError
from relaybox.http import make_token
from relaybox.local import (
    LocalKafka,
    LocalPostgres,
    Part,
    ServerPart,
    Start,
    Supervisor,
    free_port,
    require_free_port,
)
from relaybox.outbox import OutboxSettings
from relaybox.relay import ensure_topics
from relaybox.settings import JwtSettings, KafkaSettings, PostgresSettings, load_settings

from backend.api import PREFIX
from backend.migrations import ALL
from backend.settings import ApiSettings, ServiceType

__all__ = ("NotRunning", "ProductSettings", "run_product", "running_environment")

_READY_PAUSE_S: Final = 0.05
_TOKEN_S: Final = 30 * 86_400


class NotRunning(RelayboxError):
    """Raised when the running product is asked for and there is none."""

    error_code = "PRODUCT_NOT_RUNNING"


class ProductSettings(BaseSettings):
    """Where the product keeps its data."""

    model_config = SettingsConfigDict(env_prefix="RELAYBOX_", frozen=True, extra="ignore")

    data_dir: Path = Path(".relaybox/data")

    @property
    def state_file(self) -> Path:
        """The running product's environment, for ``backend env``; there only while it runs."""
        return self.data_dir / "running.json"


@dataclass(kw_only=True, slots=True)
class _Product:
    """What is being started, and the environment that grows with it."""

    settings: ProductSettings
    supervisor: Supervisor
    environment: dict[str, str] = field(default_factory=lambda: dict(os.environ))

    async def compose(self, start: Start) -> None:
        """Start everything in order; each part sees what those before it became."""
        api = load_settings(ApiSettings)
        if api.api_workers == 1:
            require_free_port(api.api_port, setting="API_PORT")
        self.environment["JWT_SECRET"] = self.environment.get("JWT_SECRET") or _kept_secret(
            self.settings.data_dir
        )
        await asyncio.gather(self._start_postgres(start), self._start_kafka(start))
        await self._prepare()
        for service, where in self._addresses(api).items():
            await start(self._part(service, where))
        self._announce(api)

    async def _start_postgres(self, start: Start) -> None:
        if "POSTGRES_HOST" in self.environment:
            self.supervisor.say("postgres", f"using {self.environment['POSTGRES_HOST']} from the environment")
            return
        server = LocalPostgres(self.settings.data_dir / "postgres")
        await start(ServerPart(name="postgres", server=server))
        self.environment |= server.settings()

    async def _start_kafka(self, start: Start) -> None:
        if "KAFKA_HOST" in self.environment:
            self.supervisor.say("kafka", f"using {self.environment['KAFKA_HOST']} from the environment")
            return
        server = LocalKafka(self.settings.data_dir / "kafka")
        await start(ServerPart(name="kafka", server=server))
        self.environment |= server.settings()

    async def _prepare(self) -> None:
        """Bring the schema and the topics to what the code needs."""
        os.environ.update(self.environment)
        for revision in await migrate_up(load_settings(PostgresSettings), *ALL):
            self.supervisor.say("postgres", f"migrated to {revision}")
        topics = load_settings(OutboxSettings).declared()
        for topic in await ensure_topics(load_settings(KafkaSettings), topics):
            self.supervisor.say("kafka", f"created the topic {topic}")

    def _addresses(self, api: ApiSettings) -> Mapping[ServiceType, str]:
        return {
            ServiceType.API_GATEWAY: f"http://127.0.0.1:{api.api_port}",
            ServiceType.MESSAGE_RELAY: f"http://127.0.0.1:{free_port()}",
            ServiceType.CONCEPT_AGENT: f"http://127.0.0.1:{free_port()}",
        }

    def _part(self, service: ServiceType, where: str) -> Part:
        port = where.rpartition(":")[2]
        return Part(
            name=service,
            argv=(sys.executable, "-m", "backend"),
            env={**self.environment, "SERVICE_TYPE": service, "HEALTH_PORT": port, "LOG_JSON": "false"},
            ready=lambda: _until_ready(where),
        )

    def _announce(self, api: ApiSettings) -> None:
        url = f"http://127.0.0.1:{api.api_port}"
        token = make_token(load_settings(JwtSettings), "writer", _TOKEN_S)
        names = ("POSTGRES_", "KAFKA_", "JWT_")
        shown = {name: value for name, value in self.environment.items() if name.startswith(names)}
        jwt = load_settings(JwtSettings)
        shown |= {"JWT_ISSUER": jwt.issuer, "JWT_AUDIENCE": jwt.audience, "API_URL": url, "DEV_TOKEN": token}
        _write_private(self.settings.state_file, json.dumps({"pid": os.getpid(), "environment": shown}))
        for line in (
            "",
            "Relaybox is ready.",
            f"  API    {url}{PREFIX}",
            f"  docs   {url}/docs",
            f"  token  {token}",
            "",
            "Try it:",
            f"  curl -X POST {url}{PREFIX} -H 'Content-Type: application/json' \\",
            f"    -H 'Authorization: Bearer {token}' -d '{{}}'",
            "",
            "`make demo` tells a whole story; Ctrl-C stops everything.",
        ):
            self.supervisor.say("relaybox", line)


async def run_product(settings: ProductSettings) -> int:
    """Run everything in the foreground until a signal; returns the exit code.

    Raises:
        RelayboxError: a server, a port, the schema or a topic is not to be had; says what to do.
    """
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    product = _Product(settings=settings, supervisor=Supervisor())
    try:
        return await product.supervisor.run(product.compose)
    finally:
        settings.state_file.unlink(missing_ok=True)


def running_environment(settings: ProductSettings) -> dict[str, str]:
    """The settings of the running product (contract, section 7).

    Raises:
        NotRunning: none runs on this data directory.
    """
    try:
        state = json.loads(settings.state_file.read_text())
        os.kill(state["pid"], 0)
    except (FileNotFoundError, ProcessLookupError):
        raise NotRunning("the product does not run here; start it with `make run`") from None
    return state["environment"]


async def _until_ready(url: str) -> None:
    async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
        while True:
            try:
                if (await client.get("/readyz")).is_success:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(_READY_PAUSE_S)


def _kept_secret(data_dir: Path) -> str:
    """A secret for development tokens, made once, so that a token outlives a restart."""
    file = data_dir / "jwt-secret"
    if not file.exists():
        _write_private(file, secrets.token_urlsafe(48))
    return file.read_text()


def _write_private(file: Path, text: str) -> None:
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as target:
        target.write(text)
