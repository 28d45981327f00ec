"""The pages of the Python reference agree with the sources, and each public name is documented."""

import pytest

from tests.reference import DIRECTORY, INDEX, PublicModule, pages_by_path, public_modules


def test_pages_of_python_are_up_to_date() -> None:
    pages = pages_by_path()
    assert {INDEX, *DIRECTORY.glob("*.md")} == set(pages), "run: make reference"
    outdated = [path.name for path, text in pages.items() if path.read_text(encoding="utf-8") != text]
    assert not outdated, "run: make reference"


@pytest.mark.parametrize("module", public_modules(), ids=lambda module: module.path)
def test_public_names_are_documented(module: PublicModule) -> None:
    assert module.docstring
    missing = [name.name for name in module.names if not name.documentation]
    assert not missing, "write a docstring, or a comment #: above a constant"


def test_reference_has_every_package_of_the_library() -> None:
    paths = {module.path for module in public_modules()}
    assert {
        "relaybox.consumers",
        "relaybox.http.client",
        "relaybox.settings",
        "relaybox_types.envelope",
    } <= paths
