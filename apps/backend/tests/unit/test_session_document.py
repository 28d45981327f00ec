"""The commands of a session in the OpenAPI document, and their declarations."""

import inspect
import re
from typing import Any

import pytest
from backend.genesis import session
from backend.genesis.session import genesis
from relaybox.http import Backbone, command_router, create_app

_PUBLIC = [name for name, one in genesis.handlers.items() if not (one.internal or one.creates)]


def _is_decider(one: object) -> bool:
    return (
        inspect.isfunction(one)
        and one.__module__ == session.__name__
        and list(inspect.signature(one).parameters)[:2] == ["session", "command"]
        and not one.__name__.startswith("_")
    )


_DECIDERS = [one for one in vars(session).values() if _is_decider(one)]


@pytest.fixture
def document() -> dict[str, Any]:
    backbone = Backbone.from_environment([genesis], service="suite")
    app = create_app(
        title="t", version="1", lifespan=backbone.lifespan, checks={}, registry=backbone.registry
    )
    app.include_router(command_router(backbone, genesis), prefix="/sessions")
    return app.openapi()


def test_document_has_a_body_for_each_public_command(document: dict[str, Any]) -> None:
    sent = document["paths"]["/sessions/{session_id}/commands"]["post"]
    body = sent["requestBody"]["content"]["application/json"]["schema"]
    assert set(body["discriminator"]["mapping"]) == set(_PUBLIC)
    schemas = document["components"]["schemas"]
    for name in _PUBLIC:
        shown = schemas[f"{name}Command"]["properties"]
        assert shown["command_type"]["const"] == name
        assert f"#/components/schemas/{name}" in str(shown["payload"])
        assert name in schemas


def test_document_names_every_refusal_of_a_public_command(document: dict[str, Any]) -> None:
    shown = document["paths"]["/sessions/{session_id}/commands"]["post"]["responses"]["422"]["description"]
    for name in _PUBLIC:
        for refusal in genesis.handlers[name].refuses:
            assert refusal.error_code in shown
            assert refusal.error_code in document["components"]["schemas"][f"{name}Command"]["description"]


def test_every_reference_of_the_document_resolves(document: dict[str, Any]) -> None:
    references = set(re.findall(r"'#/components/schemas/([^']+)'", str(document)))
    assert references <= set(document["components"]["schemas"])


@pytest.mark.parametrize("decider", _DECIDERS, ids=lambda one: one.__name__)
def test_declared_refusals_are_those_of_the_docstring(decider: Any) -> None:
    _, _, raises = (inspect.getdoc(decider) or "").partition("Raises:")
    named = set(re.findall(r"\b[A-Z][a-z]+[A-Z]\w+(?=[,:])", raises))
    command = list(inspect.signature(decider, eval_str=True).parameters.values())[1].annotation
    assert {one.__name__ for one in genesis.handlers[command.__name__].refuses} == named
