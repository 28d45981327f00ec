"""Static checks of Dockerfile, compose file and the targets of Prometheus."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from backend.api import create_api
from backend.services import run_service
from backend.settings import RoleSettings, ServiceType
from pydantic_settings import BaseSettings
from relaybox.local import free_port
from relaybox.outbox import OutboxSettings
from relaybox.settings import KafkaSettings, PostgresSettings, RelaySettings

from tests.unit.test_settings_pages import names_of, settings

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "infrastructure/docker"
COMPOSE: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
INSTRUCTIONS = [
    re.sub(r"\s+", " ", instruction)
    for instruction in re.split(
        r"\n(?=[A-Z]+ )", re.sub(r"\\\n|^#.*\n", "", (DOCKER / "Dockerfile").read_text(), flags=re.MULTILINE)
    )
    if instruction.strip()
]
PINNED = re.compile(r"[a-z0-9./-]+:\d+\.\d+[a-z0-9.-]*")
#: Variables of compose that are not settings: the superuser of the database, the extras of the image.
OF_COMPOSE = {"POSTGRES_SUPERUSER_PASSWORD", "IMAGE_EXTRAS"}
#: Defaults of the compose file that differ from those of the settings: servers, roles, and JSON logs.
DEFAULTS_OF_COMPOSE = {
    "POSTGRES_HOST": "postgres",
    "POSTGRES_OWNER_USER": "relaybox_owner",
    "KAFKA_HOST": "kafka",
    "LOG_JSON": "true",
    "IMAGE_EXTRAS": "llm",
}
#: Set by the image; in compose API_HOST and API_PORT are the address on the host.
OF_THE_IMAGE = {"API_HOST", "API_PORT", "HEALTH_HOST", "HEALTH_PORT"}
#: Read by `make run` only.
OF_ONE_MACHINE = {"RELAYBOX_DATA_DIR", "RELAYBOX_CACHE_DIR"}
#: Only migrations connect as the owner.
OF_THE_OWNER = {"POSTGRES_OWNER_USER", "POSTGRES_OWNER_PASSWORD"}


def arguments(name: str) -> list[str]:
    return [text.partition(" ")[2].strip() for text in INSTRUCTIONS if text.startswith(f"{name} ")]


def test_compose_starts_every_service() -> None:
    types = [service["environment"].get("SERVICE_TYPE") for service in OURS.values()]
    assert {one for one in types if one} == set(ServiceType)


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> set[type[BaseSettings]]:
    """Record every settings class that is loaded."""
    read = set[type[BaseSettings]]()
    original = BaseSettings.__init__

    def record(self: BaseSettings, **given: Any) -> None:
        read.add(type(self))
        original(self, **given)

    monkeypatch.setattr(BaseSettings, "__init__", record)
    return read


def names_read(kinds: set[type[BaseSettings]]) -> set[str]:
    return {name for kind in kinds for name in names_of(kind)}


def read_by(
    service_type: ServiceType, loaded: set[type[BaseSettings]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Create the service as its process does, with unreachable servers."""
    for name, value in {
        "POSTGRES_PORT": str(free_port()),
        "KAFKA_PORT": str(free_port()),
        "HEALTH_PORT": str(free_port()),
        "JWT_SECRET": "a secret of thirty-two bytes, or more",
        "SERVICE_TYPE": service_type.value,
    }.items():
        monkeypatch.setenv(name, value)
    loaded |= {RoleSettings}
    if service_type is ServiceType.API_GATEWAY:
        create_api()
        return

    async def end_at_once(*_services: object) -> None:
        return

    monkeypatch.setattr("relaybox.service.run_until_signal", end_at_once)
    run_service(service_type)


@pytest.mark.parametrize("name", [name for name, one in OURS.items() if "SERVICE_TYPE" in one["environment"]])
def test_service_gets_exactly_the_settings_that_it_reads(
    name: str, loaded: set[type[BaseSettings]], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = set(OURS[name]["environment"])
    read_by(ServiceType(OURS[name]["environment"]["SERVICE_TYPE"]), loaded, monkeypatch)
    assert given == names_read(loaded) - OF_THE_IMAGE - OF_THE_OWNER, "update compose.yaml"


@pytest.mark.parametrize(
    ("name", "kinds"),
    [("migrate", {PostgresSettings}), ("topics", {KafkaSettings, OutboxSettings, RelaySettings})],
)
def test_one_off_task_gets_exactly_the_settings_that_it_reads(
    name: str, kinds: set[type[BaseSettings]]
) -> None:
    assert set(OURS[name]["environment"]) == names_read(kinds)


def test_settings_of_the_environment_file_reach_a_service() -> None:
    given = {name for service in OURS.values() for name in service["environment"]}
    assert settings().keys() == given | OF_THE_IMAGE | OF_ONE_MACHINE


def test_partitions_of_the_environment_file_reach_the_new_topics() -> None:
    assert "${RELAY_TOPIC_PARTITIONS:-8}" in OURS["topics"]["command"]


def test_passed_settings_do_not_replace_those_of_the_image() -> None:
    # Compose removes a variable without a value from the environment of the image.
    [environment] = arguments("ENV")
    of_the_image = set(re.findall(r"([A-Z_]+)=", environment))
    for name, service in OURS.items():
        passed = {one for one, value in service["environment"].items() if value is None}
        assert not passed & of_the_image, name


def scraped() -> Iterator[tuple[str, int]]:
    text = (ROOT / "infrastructure/monitoring/prometheus.yml").read_text()
    for job in yaml.safe_load(text)["scrape_configs"]:
        for found in job["dns_sd_configs"]:
            yield from ((name, found["port"]) for name in found["names"])


def test_prometheus_scrapes_every_service() -> None:
    [port] = arguments("EXPOSE")
    services_of_ours = {name for name, one in OURS.items() if "SERVICE_TYPE" in one["environment"]}
    assert dict(scraped()) == dict.fromkeys(services_of_ours, int(port))


def test_chess_is_installed_only_by_a_build_argument() -> None:
    assert "EXTRAS=llm" in arguments("ARG")
    [install] = [one for one in arguments("RUN") if "uv pip install" in one]
    assert install.endswith('"${backend}[${EXTRAS}]"')
    args: Mapping[str, str] = OURS["api"]["build"]["args"]
    assert args == {"EXTRAS": "${IMAGE_EXTRAS:-llm}"}


def test_variables_of_compose_are_settings() -> None:
    asked = set(re.findall(r"\$\{([A-Z_]+)", (DOCKER / "compose.yaml").read_text()))
    assert asked - settings().keys() == OF_COMPOSE


def test_defaults_of_compose_equal_those_of_settings() -> None:
    text = (DOCKER / "compose.yaml").read_text()
    for name, default in re.findall(r"\$\{([A-Z_]+):-([^}]*)\}", text):
        assert (settings() | DEFAULTS_OF_COMPOSE)[name] == default, name


def test_secrets_have_no_default() -> None:
    text = (DOCKER / "compose.yaml").read_text()
    secrets = [
        name for name in re.findall(r"\$\{([A-Z_]+):-[^}]", text) if "PASSWORD" in name or "SECRET" in name
    ]
    assert secrets == []
    assert not re.search(r"(PASSWORD|SECRET|API_KEY): (?!\$\{)", text)


def test_only_migrations_get_the_owner() -> None:
    knowing = [
        name for name, service in OURS.items() if any("OWNER" in one for one in service["environment"])
    ]
    assert knowing == ["migrate"]


def test_mounted_and_built_files_exist() -> None:
    for service in SERVICES.values():
        for source in (one.split(":")[0] for one in service.get("volumes", [])):
            assert (DOCKER / source).exists() if source.startswith(".") else source in COMPOSE["volumes"]
    for service in OURS.values():
        context = DOCKER / service["build"]["context"]
        assert context.resolve() == ROOT
        assert (context / service["build"]["dockerfile"]).is_file()


def test_dependencies_have_the_conditions_they_need() -> None:
    for service in SERVICES.values():
        for name, condition in service.get("depends_on", {}).items():
            if condition["condition"] == "service_healthy":
                assert SERVICES[name]["healthcheck"]["test"], name
            else:
                assert "SERVICE_TYPE" not in SERVICES[name]["environment"], name


@pytest.mark.parametrize("name", SERVICES)
def test_images_are_pinned_by_version(name: str) -> None:
    assert PINNED.fullmatch(SERVICES[name]["image"])


def test_base_images_are_pinned_by_version() -> None:
    bases = [one.partition(" ")[0] for one in arguments("FROM")]
    assert bases
    assert all(PINNED.fullmatch(base) for base in bases)


def test_image_does_not_run_as_root() -> None:
    assert arguments("USER")[-1] == "10001"
    assert INSTRUCTIONS.index("USER 10001") > max(
        number for number, text in enumerate(INSTRUCTIONS) if text.startswith(("RUN ", "COPY ", "FROM "))
    )


def test_image_installs_only_locked_dependencies() -> None:
    [pip] = [one for one in arguments("RUN") if "pip install" in one and "uv pip" not in one]
    assert "--require-hashes" in pip
    [install] = [one for one in arguments("RUN") if "uv pip install" in one]
    assert "--constraints requirements.lock" in install
    assert "[local]" not in install
    [build] = [one for one in arguments("RUN") if "uv build" in one]
    assert "--build-constraints requirements.lock" in build


def test_image_copies_only_the_environment() -> None:
    last = max(number for number, text in enumerate(INSTRUCTIONS) if text.startswith("FROM "))
    copied = [text for text in INSTRUCTIONS[last:] if text.startswith(("COPY ", "ADD "))]
    assert copied == ["COPY --from=build /opt/relaybox /opt/relaybox"]


def test_image_serves_health_on_one_port_for_every_role() -> None:
    [port] = arguments("EXPOSE")
    [environment] = arguments("ENV")
    for setting in (f"API_PORT={port}", f"HEALTH_PORT={port}", "API_HOST=0.0.0.0", "HEALTH_HOST=0.0.0.0"):
        assert setting in environment


def test_files_of_the_build_are_not_ignored() -> None:
    ignored = (DOCKER / "Dockerfile.dockerignore").read_text().splitlines()
    assert "*" in ignored
    for copied in arguments("COPY"):
        if "--from" not in copied:
            source = copied.split()[0]
            assert (ROOT / source).exists()
            assert f"!{source}" in ignored
