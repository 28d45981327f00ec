"""Image and compose file, as far as they can be judged without a container engine."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from backend.settings import ServiceType

from tests.unit.test_settings_pages import settings

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
#: What compose takes from outside and is no setting of the product: the database image's superuser.
OF_COMPOSE = {"POSTGRES_SUPERUSER_PASSWORD"}


def arguments(name: str) -> list[str]:
    return [text.partition(" ")[2].strip() for text in INSTRUCTIONS if text.startswith(f"{name} ")]


def test_every_service_of_the_product_is_started() -> None:
    types = [service["environment"].get("SERVICE_TYPE") for service in OURS.values()]
    assert {one for one in types if one} == set(ServiceType)


def test_every_name_in_a_services_environment_is_a_setting() -> None:
    for name, service in OURS.items():
        assert service["environment"].keys() <= settings().keys(), name


def test_what_compose_asks_for_is_a_setting_or_the_superusers_password() -> None:
    asked = set(re.findall(r"\$\{([A-Z_]+)", (DOCKER / "compose.yaml").read_text()))
    assert asked - settings().keys() == OF_COMPOSE


def test_a_default_of_compose_is_the_default_of_the_setting() -> None:
    text = (DOCKER / "compose.yaml").read_text()
    for name, default in re.findall(r"\$\{([A-Z_]+):-([^}]*)\}", text):
        assert settings()[name] == default, name


def test_secrets_have_no_default() -> None:
    text = (DOCKER / "compose.yaml").read_text()
    secrets = [
        name for name in re.findall(r"\$\{([A-Z_]+):-[^}]", text) if "PASSWORD" in name or "SECRET" in name
    ]
    assert secrets == []
    assert not re.search(r"(PASSWORD|SECRET|API_KEY): (?!\$\{)", text)


def test_only_migrations_know_the_owner() -> None:
    knowing = [
        name for name, service in OURS.items() if any("OWNER" in one for one in service["environment"])
    ]
    assert knowing == ["migrate"]


def test_every_file_that_is_mounted_or_built_from_exists() -> None:
    for service in SERVICES.values():
        for source in (one.split(":")[0] for one in service.get("volumes", [])):
            assert (DOCKER / source).exists() if source.startswith(".") else source in COMPOSE["volumes"]
    for service in OURS.values():
        context = DOCKER / service["build"]["context"]
        assert context.resolve() == ROOT
        assert (context / service["build"]["dockerfile"]).is_file()


def test_every_neighbour_that_is_waited_for_is_a_service_that_can_be_waited_for() -> None:
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


def test_the_image_does_not_run_as_root() -> None:
    assert arguments("USER")[-1] == "10001"
    assert INSTRUCTIONS.index("USER 10001") > max(
        number for number, text in enumerate(INSTRUCTIONS) if text.startswith(("RUN ", "COPY ", "FROM "))
    )


def test_only_locked_dependencies_get_into_the_image() -> None:
    [pip] = [one for one in arguments("RUN") if "pip install" in one and "uv pip" not in one]
    assert "--require-hashes" in pip
    [install] = [one for one in arguments("RUN") if "uv pip install" in one]
    assert "--constraints requirements.lock" in install
    assert "[local]" not in install
    [build] = [one for one in arguments("RUN") if "uv build" in one]
    assert "--build-constraints requirements.lock" in build


def test_only_the_finished_environment_is_copied_into_the_image() -> None:
    last = max(number for number, text in enumerate(INSTRUCTIONS) if text.startswith("FROM "))
    copied = [text for text in INSTRUCTIONS[last:] if text.startswith(("COPY ", "ADD "))]
    assert copied == ["COPY --from=build /opt/relaybox /opt/relaybox"]


def test_the_image_tells_its_health_on_the_port_that_every_role_serves() -> None:
    [port] = arguments("EXPOSE")
    [environment] = arguments("ENV")
    assert f"API_PORT={port}" in environment
    assert f"HEALTH_PORT={port}" in environment
    [check] = arguments("HEALTHCHECK")
    assert f"'127.0.0.1', {port}" in check
    assert "/healthz" in check


def test_what_the_build_copies_is_let_through_to_the_builder() -> None:
    ignored = (DOCKER / "Dockerfile.dockerignore").read_text().splitlines()
    assert "*" in ignored
    for copied in arguments("COPY"):
        if "--from" not in copied:
            source = copied.split()[0]
            assert (ROOT / source).exists()
            assert f"!{source}" in ignored
