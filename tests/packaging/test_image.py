"""The image: every service of the compose file runs from it, and the demos run with them."""

import json
import os
import re
import subprocess
from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2 as httpx
import pytest
import yaml
from backend.running import ProductSettings, lock_data_directory
from relaybox.http import make_token
from relaybox.local import LocalKafka, LocalPostgres, free_port
from relaybox.settings import JwtSettings
from relaybox.testing import server_directory

from tests.fixtures.container_database import container_database
from tests.fixtures.image import DOCKERFILE, Builder, missing_requirement
from tests.fixtures.product import BACKEND, Writer, wait_for

pytestmark = [pytest.mark.long, pytest.mark.timeout(3_600)]

SERVICES = yaml.safe_load(DOCKERFILE.with_name("compose.yaml").read_text())["services"]
#: Extras of each image, and the demos that its services support.
IMAGES = {"plain": ("llm", ["genesis"]), "chess": ("llm,chess", ["genesis", "workspace"])}
VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*)|:\?[^}]*)?\}")
HAS_CHESS = ("python", "-c", "import chess")
_STORY_S = 600


@pytest.fixture(scope="module")
def builder() -> Iterator[Builder]:
    if reason := missing_requirement():
        pytest.skip(reason)
    with server_directory() as place:
        builder = Builder(place)
        yield builder
        builder.close()


@pytest.fixture(scope="module", params=IMAGES)
def image(request: pytest.FixtureRequest, builder: Builder) -> str:
    """The tag of an image, built as compose builds it."""
    builder.build(request.param, EXTRAS=IMAGES[request.param][0])
    return request.param


@pytest.fixture(scope="module")
def env_file(postgres_server: LocalPostgres, kafka_server: LocalKafka) -> Iterator[dict[str, str]]:
    """Settings of an ``.env`` file that uses existing servers on this machine."""
    with container_database(postgres_server) as postgres:
        owner = postgres.as_owner()
        yield {
            "POSTGRES_SUPERUSER_PASSWORD": postgres_server.superuser_password,
            "POSTGRES_HOST": postgres.host,
            "POSTGRES_PORT": str(postgres.port),
            "POSTGRES_DB": postgres.db,
            "POSTGRES_USER": postgres.user,
            "POSTGRES_PASSWORD": postgres.password.get_secret_value(),
            "POSTGRES_OWNER_USER": owner.user,
            "POSTGRES_OWNER_PASSWORD": owner.password.get_secret_value(),
            "KAFKA_HOST": kafka_server.host,
            "KAFKA_PORT": str(kafka_server.port),
            "JWT_SECRET": "a secret of thirty-two bytes, or more",
            "WORKSPACE_TRASH_KEEP_DAYS": "0",
            "RELAY_POLL_INTERVAL": "0.5",
        }


def filled_in(text: str, env_file: Mapping[str, str]) -> str:
    """Substitute variables as compose does."""
    return VARIABLE.sub(lambda found: env_file.get(found[1]) or found[2] or "", text)


def environment_of(service: str, env_file: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a service in compose: a variable without value is passed if set."""
    given = {
        name: env_file.get(name) if value is None else filled_in(value, env_file)
        for name, value in SERVICES[service]["environment"].items()
    }
    return {name: value for name, value in given.items() if value is not None}


def health_check() -> list[str]:
    [words] = re.findall(r"^HEALTHCHECK .*\\\n +CMD (\[.*\])$", DOCKERFILE.read_text(), re.MULTILINE)
    return json.loads(words)


def command_of_the_image() -> list[str]:
    [words] = re.findall(r"^CMD (\[.*\])$", DOCKERFILE.read_text(), re.MULTILINE)
    return json.loads(words)


@dataclass(frozen=True, kw_only=True)
class Deployed:
    """The services of the compose file, from one image."""

    env_file: Mapping[str, str]
    #: Port of each service instead of 8000, because the containers share the network of this machine.
    ports: Mapping[str, str]

    @property
    def jwt(self) -> JwtSettings:
        return JwtSettings.model_validate({"secret": self.env_file["JWT_SECRET"]})

    @property
    def api_url(self) -> str:
        return f"http://127.0.0.1:{self.ports['api']}"

    def client(self) -> Writer:
        return Writer(self.api_url, make_token(self.jwt, "writer"))

    def shown(self) -> dict[str, str]:
        """The variables that a demo needs to use the running services."""
        jwt = self.jwt
        return {
            "API_URL": self.api_url,
            "DEV_TOKEN": make_token(jwt, "writer"),
            "JWT_SECRET": self.env_file["JWT_SECRET"],
            "JWT_ISSUER": jwt.issuer,
            "JWT_AUDIENCE": jwt.audience,
            "KAFKA_HOST": self.env_file["KAFKA_HOST"],
            "KAFKA_PORT": self.env_file["KAFKA_PORT"],
        }


@contextmanager
def deployed(builder: Builder, image: str, env_file: Mapping[str, str], logs: Path) -> Generator[Deployed]:
    """Run the services of the compose file; each must exit with 0 after SIGTERM."""
    names = [name for name, one in SERVICES.items() if "SERVICE_TYPE" in one.get("environment", {})]
    ports = {name: str(free_port()) for name in names}
    for task in ("migrate", "topics"):
        command = [filled_in(word, env_file) for word in SERVICES[task]["command"]]
        builder.container(image).run(environment_of(task, env_file), *command)
    with ExitStack() as stack:
        for name, port in ports.items():
            environment = environment_of(name, env_file) | {"API_PORT": port, "HEALTH_PORT": port}
            container = builder.container(image)
            stack.enter_context(container.running(environment, command_of_the_image(), logs / f"{name}.log"))
            # Not the default address of services, because probes come from outside.
            wait_for(f"{name}, which is ready", lambda at=f"http://127.0.0.2:{port}": ready(at))
            check = {"SERVICE_TYPE": environment["SERVICE_TYPE"], "API_PORT": port, "HEALTH_PORT": port}
            assert container.succeeds(check, *health_check()), name
        yield Deployed(env_file=env_file, ports=ports)


def ready(url: str) -> bool | None:
    try:
        return httpx.get(f"{url}/readyz", trust_env=False).is_success or None
    except httpx.TransportError:
        return None


def run_demo(story: str, product: Deployed, data_dir: Path) -> str:
    """Run the demo with the settings of the running services."""
    settings = ProductSettings(data_dir=data_dir)
    with lock_data_directory(settings) as running:
        running.announce(product.shown())
        done = subprocess.run(
            [BACKEND, "demo", story],
            env=os.environ | {"RELAYBOX_DATA_DIR": str(data_dir)},
            capture_output=True,
            text=True,
            timeout=_STORY_S,
            check=False,
        )
    assert done.returncode == 0, done.stdout[-4_000:] + done.stderr[-4_000:]
    return done.stdout


@pytest.fixture(scope="module")
def product(
    builder: Builder, image: str, env_file: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployed]:
    with deployed(builder, image, env_file, tmp_path_factory.mktemp(f"logs-{image}")) as product:
        yield product


def test_services_of_the_image_run_the_demos(image: str, product: Deployed, tmp_path: Path) -> None:
    _, stories = IMAGES[image]
    for story in stories:
        output = run_demo(story, product, tmp_path / story)
        assert f"Talking to the running product at {product.api_url}" in output
        assert "Every step happened." in output


def test_trash_setting_reaches_the_services(product: Deployed) -> None:
    with product.client() as client:
        made = client.post("/api/v1/nodes", json={"kind": "workspace", "title": "club"})
        node, version = made.json()["id"], made.headers["etag"]
        assert client.delete(f"/api/v1/nodes/{node}", headers={"If-Match": version}).status_code == 204
        found = {item["id"]: item["purge_at"] for item in client.get("/api/v1/trash").json()["items"]}
        assert found[node] is None


def test_image_has_chess_only_by_its_build_argument(builder: Builder, image: str) -> None:
    container = builder.container(image)
    assert container.run({}, "id", "--user") == "10001"
    assert container.succeeds({}, *HAS_CHESS) == ("chess" in IMAGES[image][0])
