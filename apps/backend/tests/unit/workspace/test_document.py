"""The routes of the workspace in the OpenAPI document."""

import re
from typing import Any

import pytest
from backend.workspace.routes import workspace_router
from pydantic import SecretStr
from relaybox.db import Database
from relaybox.http import Backbone, SharedSecretVerifier, create_app
from relaybox.settings import JwtSettings, PostgresSettings


@pytest.fixture(scope="module")
def operations() -> list[tuple[str, Any]]:
    """Return every operation with its path; no server is needed."""
    jwt = JwtSettings(secret=SecretStr("a-secret-that-is-long-enough-for-hs256"))
    database = Database(PostgresSettings(password=SecretStr("none")))
    backbone = Backbone(database, [], verifier=SharedSecretVerifier(jwt), service="test")
    app = create_app(
        title="t", version="1", lifespan=backbone.lifespan, checks={}, registry=backbone.registry
    )
    app.include_router(workspace_router(backbone, jwt), prefix="/api/v1")
    paths = app.openapi()["paths"]
    return [(path, one) for path, methods in paths.items() for one in methods.values()]


def _named(operation: Any, where: str) -> list[str]:
    return [one["name"].lower() for one in operation.get("parameters", ()) if one["in"] == where]


def test_every_parameter_of_a_path_is_named_once(operations: list[tuple[str, Any]]) -> None:
    for path, operation in operations:
        assert sorted(_named(operation, "path")) == sorted(re.findall(r"{(\w+)}", path)), path
        assert all(one["required"] for one in operation.get("parameters", ()) if one["in"] == "path")


def test_routes_document_the_headers_of_their_responses(operations: list[tuple[str, Any]]) -> None:
    for path, operation in operations:
        named, answers = _named(operation, "header"), operation["responses"]
        assert named.count("if-match") == ("428" in answers), path
        assert named.count("idempotency-key") == ("410" in answers), path


def test_document_has_if_match_for_changes_and_keys_for_writes(
    operations: list[tuple[str, Any]],
) -> None:
    assert sum("428" in one["responses"] for _, one in operations) >= 10
    assert sum("410" in one["responses"] for _, one in operations) >= 20
