"""The page of the documentation works without internet and describes the real responses."""

import json
import re
from typing import Annotated, Any

import httpx2 as httpx
import pytest
from fastapi import FastAPI, Header, Request
from relaybox.http import KEY_ERRORS, error_responses


@pytest.fixture
async def document(http: httpx.AsyncClient) -> dict[str, Any]:
    return (await http.get("/openapi.json")).json()


async def test_page_refers_to_no_other_host(http: httpx.AsyncClient) -> None:
    page = await http.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    start = await http.get("/docs/assets/start.js")
    assert "//" not in page.text + start.text
    assert "default-src 'self'" in page.headers["content-security-policy"]


async def test_every_asset_of_the_page_is_served(http: httpx.AsyncClient) -> None:
    page = await http.get("/docs")
    names = re.findall(r'(?:href|src)="([^"]+)"', page.text)
    assert len(names) == 4
    for name in names:
        asset = await http.get(f"/{name}")
        assert asset.status_code == 200
        assert asset.content


async def test_page_can_show_this_openapi_version(http: httpx.AsyncClient, document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1.")
    assert "isOAS31=" in (await http.get("/docs/assets/swagger-ui-bundle.js")).text


@pytest.mark.parametrize("name", ["__init__.py", "..%2fmain.py", "swagger-ui.css.map"])
async def test_no_other_file_is_served_as_an_asset(http: httpx.AsyncClient, name: str) -> None:
    assert (await http.get(f"/docs/assets/{name}")).status_code == 404


async def test_title_is_escaped_in_the_page(http: httpx.AsyncClient) -> None:
    assert "<title>Shop &lt;b&gt;</title>" in (await http.get("/docs")).text


async def test_route_documents_its_body_token_and_errors(document: dict[str, Any]) -> None:
    operation = document["paths"]["/api/shop/{shop}/orders/{order_id}"]["post"]
    assert operation["security"] == [{"bearer": []}]
    assert set(operation["responses"]) == {"200", "400", "401", "408", "413", "415", "422"}
    body = operation["requestBody"]["content"]["application/json"]["schema"]
    assert body["properties"]["lines"]["items"] == {"$ref": "#/components/schemas/BoxedLine"}


async def test_every_reference_of_the_document_resolves(document: dict[str, Any]) -> None:
    references = set(re.findall(r'"\$ref": "#/components/schemas/([^"]+)"', json.dumps(document)))
    assert references <= set(document["components"]["schemas"])
    assert "ErrorBody" in references


async def test_error_format_of_the_framework_is_not_documented(document: dict[str, Any]) -> None:
    assert not {"HTTPValidationError", "ValidationError"} & set(document["components"]["schemas"])
    assert "HTTPValidationError" not in json.dumps(document)


async def test_pages_for_operators_are_not_documented(document: dict[str, Any]) -> None:
    assert not [path for path in document["paths"] if not path.startswith("/api/")]


async def test_body_that_a_route_parses_itself_is_documented(api: FastAPI) -> None:
    async def by_hand(request: Request) -> str:
        return request.path_params["other"]

    async def declared(one: int) -> int:
        return one

    kept = error_responses(*KEY_ERRORS)
    api.add_api_route("/things/{one}/{other}", by_hand, methods=["POST"], responses=kept)
    api.add_api_route("/declared/{one}", declared)
    paths = api.openapi()["paths"]
    posted, got = paths["/things/{one}/{other}"]["post"], paths["/declared/{one}"]["get"]
    assert [(one["name"], one["in"], one["required"]) for one in posted["parameters"]] == [
        ("one", "path", True),
        ("other", "path", True),
        ("Idempotency-Key", "header", False),
    ]
    assert [(one["name"], one["schema"]["type"]) for one in got["parameters"]] == [("one", "integer")]


async def test_body_that_a_route_declares_itself_is_documented_once(api: FastAPI) -> None:
    async def declared(request: Request, one: int, idempotency_key: Annotated[str, Header()]) -> str:
        return f"{request.path_params['other']} {one} {idempotency_key}"

    api.add_api_route("/both/{other}", declared, methods=["POST"], responses=error_responses(*KEY_ERRORS))
    named = api.openapi()["paths"]["/both/{other}"]["post"]["parameters"]
    assert sorted((one["in"], one["name"]) for one in named) == [
        ("header", "idempotency-key"),
        ("path", "other"),
        ("query", "one"),
    ]
