"""An operation accepts the query parameters that it declares, and refuses all others."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

import httpx2 as httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, Query, Request
from fastapi.security import APIKeyQuery
from pydantic import BaseModel, ConfigDict, Field
from relaybox.http import BadHeader, Principal, SharedSecretVerifier, bearer, error_responses

from .conftest import JWT

EFFECTS: list[str] = []


class Page(BaseModel):
    """Parameters as a model."""

    limit: int = 5
    after: str | None = Field(default=None, alias="page-after")
    tags: list[str] = []


class Anything(BaseModel):
    """Parameters of a model that allows unknown ones."""

    model_config = ConfigDict(extra="allow")

    known: int = 0


def routes() -> APIRouter:
    router = APIRouter(prefix="/parts/{shop}")
    sender = Depends(bearer(SharedSecretVerifier(JWT)))

    def paged(limit: int = 3) -> int:
        return limit

    @router.post("/plain")
    async def plain(dry_run: bool = False) -> bool:
        EFFECTS.append("plain")
        return dry_run

    @router.post("/guarded")
    async def guarded(sender: Annotated[Principal, sender], request: Request, strict: bool = False) -> str:
        EFFECTS.append("guarded")
        return f"{sender.subject} {request.url.query} {strict}"

    @router.get("/threaded")
    def threaded(
        limit: Annotated[int, Depends(paged)],
        key: Annotated[str | None, Depends(APIKeyQuery(name="api_key", auto_error=False))],
        kind: Annotated[list[str] | None, Query()] = None,
    ) -> list[Any]:
        return [limit, key, kind]

    @router.get("/model")
    async def model(page: Annotated[Page, Query()]) -> dict[str, Any]:
        return page.model_dump()

    @router.get("/open")
    async def open_(given: Annotated[Anything, Query()]) -> dict[str, Any]:
        return given.model_dump()

    @router.get(
        "/by-hand",
        openapi_extra={"parameters": [{"name": "colour", "in": "query", "schema": {"type": "string"}}]},
    )
    async def by_hand(request: Request) -> str:
        return request.query_params["colour"]

    @router.get("/stream")
    async def stream() -> AsyncIterator[int]:
        yield 1

    @router.get("/hidden", include_in_schema=False)
    async def hidden() -> int:
        return 1

    _ = plain, guarded, threaded, model, open_, by_hand, stream, hidden
    return router


@pytest.fixture
def api(api: FastAPI) -> FastAPI:
    outer = APIRouter()
    outer.include_router(routes())
    api.include_router(outer, prefix="/api")
    return api


@pytest.fixture(autouse=True)
def effects() -> list[str]:
    EFFECTS.clear()
    return EFFECTS


def fields(answer: httpx.Response) -> list[str]:
    assert (answer.status_code, answer.json()["error_code"]) == (422, "VALIDATION_ERROR"), answer.text
    return [one["field"] for one in answer.json()["details"]]


async def test_unknown_parameter_is_refused_and_nothing_runs(
    http: httpx.AsyncClient, effects: list[str]
) -> None:
    answer = await http.post("/api/parts/s/plain?dryrun=hidden-value")
    assert fields(answer) == ["query.dryrun"]
    assert "accepts dry_run" in answer.json()["details"][0]["message"]
    assert "hidden-value" not in answer.text
    assert effects == []
    assert (await http.post("/api/parts/s/plain?dry_run=true")).json() is True
    assert (await http.post("/api/parts/s/plain")).json() is False


async def test_scalar_parameter_given_twice_is_refused(http: httpx.AsyncClient, effects: list[str]) -> None:
    assert fields(await http.post("/api/parts/s/plain?dry_run=true&dry_run=false")) == ["query.dry_run"]
    assert effects == []


async def test_authentication_is_refused_before_parameters(
    http: httpx.AsyncClient, token: dict[str, str], effects: list[str]
) -> None:
    path = "/api/parts/s/guarded?stric=true"
    assert (await http.post(path)).status_code == 401
    assert fields(await http.post(path, headers=token)) == ["query.stric"]
    assert effects == []
    answer = await http.post("/api/parts/s/guarded?strict=true", headers=token)
    assert answer.json() == "ann strict=true True"


async def test_parameters_of_dependencies_and_schemes_are_declared(http: httpx.AsyncClient) -> None:
    path = "/api/parts/s/threaded"
    answer = await http.get(f"{path}?limit=4&api_key=k&kind=a&kind=b")
    assert answer.json() == [4, "k", ["a", "b"]]
    assert fields(await http.get(f"{path}?limit=4&limit=4&kinds=a")) == ["query.limit", "query.kinds"]


async def test_fields_of_a_model_are_its_parameters(http: httpx.AsyncClient) -> None:
    path = "/api/parts/s/model"
    answer = await http.get(f"{path}?limit=1&page-after=x&tags=a&tags=b")
    assert answer.json() == {"limit": 1, "after": "x", "tags": ["a", "b"]}
    assert fields(await http.get(f"{path}?after=x&limit=1&limit=2")) == ["query.after", "query.limit"]
    assert (await http.get("/api/parts/s/open?known=1&other=2")).json() == {"known": 1, "other": "2"}


async def test_documented_parameter_is_declared(http: httpx.AsyncClient) -> None:
    assert (await http.get("/api/parts/s/by-hand?colour=red")).json() == "red"
    assert fields(await http.get("/api/parts/s/by-hand?colour=red&size=1")) == ["query.size"]


async def test_secret_without_a_name_is_not_repeated(http: httpx.AsyncClient) -> None:
    secret = "eyJhbGciOiJIUzI1NiJ9.e30.ZRrHA1JJJW8opsbCGfG"
    answer = await http.get(f"/api/parts/s/stream?{secret}")
    assert fields(answer) == ["query"]
    assert secret not in answer.text
    assert (await http.get("/api/parts/s/stream")).status_code == 200


async def test_undocumented_routes_ignore_their_query(http: httpx.AsyncClient) -> None:
    for path in ("/healthz", "/readyz", "/metrics", "/docs", "/openapi.json", "/api/parts/s/hidden"):
        assert (await http.get(f"{path}?name[]=up&v=2")).status_code == 200, path
    assert (await http.get("/nothing?x=1")).status_code == 404
    assert (await http.put("/api/parts/s/plain?x=1")).status_code == 405


async def test_documented_headers_of_a_command_name_its_correlation(api: FastAPI) -> None:
    async def send() -> None: ...

    api.add_api_route("/send", send, methods=["POST"], responses=error_responses(BadHeader))
    [parameter] = api.openapi()["paths"]["/send"]["post"]["parameters"]
    assert (parameter["name"], parameter["in"]) == ("X-Correlation-Id", "header")


@pytest.mark.parametrize(
    ("own", "description", "media_type"),
    [
        ({"description": "Late: it is sold, or gone"}, "Late: it is sold, or gone", "application/json"),
        ({"content": {"application/problem+json": {}}}, "Unprocessable", "application/problem+json"),
    ],
)
async def test_documented_422_of_an_application_is_kept(
    api: FastAPI, own: dict[str, Any], description: str, media_type: str
) -> None:
    async def send() -> None: ...

    api.add_api_route("/send", send, methods=["POST"], responses={422: own})
    refused = api.openapi()["paths"]["/send"]["post"]["responses"]["422"]
    assert refused["description"].startswith(description)
    assert refused["description"].endswith(": VALIDATION_ERROR")
    assert list(refused["content"]) == [media_type]


async def test_every_operation_documents_its_refusal_of_parameters(api: FastAPI) -> None:
    for methods in api.openapi()["paths"].values():
        for operation in methods.values():
            refused = operation["responses"]["422"]
            assert "VALIDATION_ERROR" in refused["description"]
            schema = refused["content"]["application/json"]["schema"]
            assert schema == {"$ref": "#/components/schemas/ErrorBody"}
