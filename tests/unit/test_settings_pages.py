"""`.env.example` and the page of settings list every setting that the code reads, with its default."""

import ast
import re
from collections.abc import Iterator
from enum import Enum
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest
from backend.settings import ProductPostgresSettings
from pydantic import SecretStr
from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings

ROOT = Path(__file__).parents[2]
SOURCES = (ROOT / "packages/relaybox/src", ROOT / "apps/backend/src")
ENV_FILE = ROOT / ".env.example"
PAGE = ROOT / "docs/reference/settings.md"
ENV_ENTRY = re.compile(r"^# ([A-Z_]+)=(.*)\n#   (\S.*)$", re.MULTILINE)
PAGE_ENTRY = re.compile(r"^\| `([A-Z_]+)` \| (?:`([^`]*)`|(required)|) \| (\S.*) \|$", re.MULTILINE)
#: Defaults of the applications that differ from those of the library.
PRODUCT = {"POSTGRES_DB": ProductPostgresSettings.model_fields["db"].default}
#: Variables that are read without a settings class, with their defaults; the cache has several candidates.
READ_ELSEWHERE = {"RELAYBOX_CACHE_DIR": ""}


def settings_classes() -> Iterator[type[BaseSettings]]:
    for source in SOURCES:
        for path in source.rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ClassDef) and "BaseSettings" in map(ast.unparse, node.bases):
                    names = path.relative_to(source).with_suffix("").parts
                    yield getattr(import_module(".".join(names)), node.name)


def shown(default: object) -> str:
    """Format a default as the value of an environment variable."""
    if default is PydanticUndefined:
        return "required"
    if isinstance(default, SecretStr):
        default = default.get_secret_value()
    if isinstance(default, Path):
        return str(default.relative_to(ROOT))
    if isinstance(default, Enum):
        default = default.value
    return "" if default is None else str(default)


def names_of(kind: type[BaseSettings]) -> Iterator[str]:
    """Return the environment variables that *kind* reads, in the order of its fields."""
    prefix = kind.model_config.get("env_prefix", "")
    fields = kind.model_fields.items()
    return (str(field.validation_alias or f"{prefix}{name}".upper()) for name, field in fields)


@cache
def settings() -> dict[str, str]:
    """Return the defaults of all settings classes by environment variable."""
    found: dict[str, str] = dict(READ_ELSEWHERE)
    for kind in settings_classes():
        for entry, field in zip(names_of(kind), kind.model_fields.values(), strict=True):
            default = shown(field.default)
            assert found.setdefault(entry, default) == default, f"{entry} has two defaults"
    return found | PRODUCT


def test_settings_classes_are_found() -> None:
    assert {"POSTGRES_HOST", "JWT_SECRET", "MUSE", "OUTBOX_TOPICS", "SERVICE_TYPE"} <= settings().keys()


def test_environment_file_lists_settings_with_defaults() -> None:
    listed = {name: default for name, default, _ in ENV_ENTRY.findall(ENV_FILE.read_text())}
    assert listed == settings()


def test_page_of_settings_lists_settings_with_defaults() -> None:
    entries = PAGE_ENTRY.findall(PAGE.read_text())
    assert {name: default or required for name, default, required, _ in entries} == settings()


def test_page_and_environment_file_describe_settings_equally() -> None:
    in_file = {name: meaning for name, _, meaning in ENV_ENTRY.findall(ENV_FILE.read_text())}
    in_page = {name: meaning for name, _, _, meaning in PAGE_ENTRY.findall(PAGE.read_text())}
    assert in_page == in_file


@pytest.mark.parametrize("name", READ_ELSEWHERE)
def test_settings_without_class_are_read(name: str) -> None:
    assert any(name in path.read_text() for source in SOURCES for path in source.rglob("*.py"))


def test_environment_file_has_only_comments() -> None:
    active = [line for line in ENV_FILE.read_text().splitlines() if line and not line.startswith("#")]
    assert active == []
