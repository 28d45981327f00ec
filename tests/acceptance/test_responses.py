"""Every route of the OpenAPI document: responses to other users and to invalid input, and metrics."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import httpx2 as httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.fixtures.bounds import WAIT_S
from tests.fixtures.product import SESSIONS, Json, Product, Writer

UNKNOWN_ID = "5f0c3c0e-9a4c-4b8e-8f52-0d1df3a5affe"
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
BODIES: Mapping[str, Json] = {"/commands": {"command_type": "AbandonSession"}}


@pytest.fixture(scope="module")
def document(product: Product) -> Json:
    return httpx.get(f"{product.environment['API_URL']}/openapi.json", trust_env=False).json()


def routes_of_one_session(document: Json) -> Iterator[tuple[str, str]]:
    for path, methods in document["paths"].items():
        for method in methods:
            if "{session_id}" in path:
                yield method, path


@pytest.mark.guarantee("G81")
def test_session_of_another_writer_looks_nonexistent(
    document: Json, product: Product, writer: Writer, stranger: Writer
) -> None:
    session = writer.create()
    accepted = writer.command(session, "RequestConceptGeneration")
    writer.wait_until_settled(session)
    command = writer.get(accepted.headers["location"]).json()
    ids = {"session_id": session, "command_id": command["command_id"], "task_id": command["task_id"]}
    routes = list(routes_of_one_session(document))
    assert len(routes) >= 6
    for method, path in routes:
        body = next((body for end, body in BODIES.items() if path.endswith(end)), None)
        foreign = stranger.request(method, path.format_map(ids), json=body)
        missing = stranger.request(method, path.format_map(dict.fromkeys(ids, UNKNOWN_ID)), json=body)
        assert foreign.status_code == missing.status_code == 404, path
        assert _anonymous(foreign, ids.values()) == _anonymous(missing, [UNKNOWN_ID]), path
    assert writer.state(session)["version"] == 3


def _anonymous(answer: httpx.Response, ids: Any) -> tuple[Json, set[str]]:
    """Return body and header names without the requested ids."""
    text = re.sub("|".join(ids), "ID", answer.text)
    body = httpx.Response(200, text=text).json()
    return body | {"request_id": ""}, set(answer.headers)


@pytest.mark.guarantee("G82")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("mode", list(GenerationMode))
@pytest.mark.parametrize("examples", [6, pytest.param(40, marks=pytest.mark.long)])
def test_generated_input_gets_documented_responses(
    product: Product, writer: Writer, mode: GenerationMode, examples: int
) -> None:
    url = product.environment["API_URL"]
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    session = writer.create()
    headers = {"Authorization": writer.headers["Authorization"]}
    tried = 0
    for found in schema.get_all_operations():
        operation = found.ok()

        @settings(
            max_examples=examples,
            deadline=None,
            database=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def check(case: Any) -> None:
            nonlocal tried
            tried += 1
            # The stream of an existing session never ends; other routes get an existing id every second time.
            if "session_id" in case.path_parameters and tried % 2 and not case.path.endswith("/events"):
                case.path_parameters["session_id"] = session
            answer = case.call(headers=headers, timeout=WAIT_S)
            case.validate_response(answer, checks=CHECKS)

        try:
            check()
        except Unsatisfiable:
            # A route whose only input is free text in its path has no invalid input.
            assert mode is GenerationMode.NEGATIVE, operation.label
    assert tried >= examples * 4


def test_every_error_documented_for_a_route_has_a_body_with_a_code(document: Json) -> None:
    errors = [
        answer
        for methods in document["paths"].values()
        for operation in methods.values()
        for status, answer in operation["responses"].items()
        if int(status) >= 400
    ]
    assert len(errors) > 20
    assert all("application/json" in answer["content"] for answer in errors)


def test_operation_has_each_tag_and_parameter_once(document: Json) -> None:
    for path, methods in document["paths"].items():
        for operation in methods.values():
            parameters = [(one["in"], one["name"].lower()) for one in operation.get("parameters", [])]
            for named in operation["tags"], parameters:
                assert len(set(named)) == len(named), path


def test_unknown_query_parameter_is_refused_by_every_operation(document: Json, writer: Writer) -> None:
    refused = 0
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            needed = [one["name"] for one in operation.get("parameters", []) if is_needed_in_query(one)]
            answer = writer.request(
                *(method, re.sub(r"{\w+}", UNKNOWN_ID, path)),
                params={"undeclared": "1"} | dict.fromkeys(needed, UNKNOWN_ID),
            )
            if answer.status_code in (404, 415):
                # Unknown ids, or the parent is in the body: authorisation precedes validation.
                continue
            refused += 1
            assert answer.status_code == 422, path
            assert "query.undeclared" in {one["field"] for one in answer.json()["details"]}, path
    assert refused > 5


def is_needed_in_query(parameter: Json) -> bool:
    return parameter["in"] == "query" and parameter["required"]


def test_api_docs_load_from_no_other_host(writer: Writer) -> None:
    page = writer.get("/docs")
    assert page.status_code == 200
    references = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert references
    assert not re.search(r"https?://|//", page.text.replace("<!DOCTYPE html>", ""))
    for reference in references:
        assert writer.get(f"/{reference}").status_code == 200


def test_cors_allows_only_configured_origins(writer: Writer) -> None:
    def asked_from(origin: str) -> httpx.Response:
        wanted = {
            "Origin": origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type,x-share-token",
        }
        return writer.options(SESSIONS, headers=wanted)

    allowed = asked_from("https://app.example")
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == "https://app.example"
    assert "access-control-allow-origin" not in asked_from("https://evil.example").headers


def test_the_api_is_alive_and_ready(writer: Writer) -> None:
    assert writer.get("/healthz").json() == {"status": "ok"}
    assert writer.get("/readyz").json() == {
        "status": "ok",
        "checks": {"postgres": {"status": "ok"}, "kafka": {"status": "ok"}},
    }


def test_metrics_count_commands_requests_and_connections(writer: Writer) -> None:
    session = writer.create()
    writer.command(session, "SubmitFeedback", feedback="x")
    figures = writer.get("/metrics").text
    for wanted in (
        'relaybox_commands_total{command_type="CreateSession",outcome="COMPLETED"}',
        'outcome="NO_PROPOSAL"',
        'route="/api/v1/genesis/sessions/{session_id}/commands"',
        "relaybox_database_connections_open",
    ):
        assert wanted in figures
    assert session not in figures
