"""Ids, log lines and metrics of requests."""

import httpx2 as httpx
import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs


async def line_of(http: httpx.AsyncClient, method: str, path: str) -> dict[str, object]:
    with capture_logs() as lines:
        await http.request(method, path)
    (line,) = [dict(line) for line in lines if line["event"] == "http.request"]
    return line


@pytest.mark.parametrize("offered", ["a", "0af76519-16cd", "Root=1".replace("=", ":"), "x" * 128])
async def test_safe_request_id_is_kept(http: httpx.AsyncClient, offered: str) -> None:
    answer = await http.get("/healthz", headers={"X-Request-Id": offered})
    assert answer.headers.get_list("x-request-id") == [offered]


@pytest.mark.parametrize("offered", [b"", b" ", b"a b", b"x" * 129, b"<script>", b"-a", b'a"b', b"a\xe9"])
async def test_unsafe_request_id_is_replaced(http: httpx.AsyncClient, offered: bytes) -> None:
    answer = await http.get("/healthz", headers=[(b"X-Request-Id", offered)])
    (given,) = answer.headers.get_list("x-request-id")
    assert len(given) == 32
    assert given.isalnum()


async def test_log_line_has_the_template_but_neither_path_nor_query(http: httpx.AsyncClient) -> None:
    line = await line_of(http, "GET", "/api/shop/private-shop/raise/teapot?ticket=hidden")
    assert line["route"] == "/api/shop/{shop}/raise/{name}"
    assert (line["method"], line["status"], line["log_level"]) == ("GET", 422, "info")
    assert float(str(line["ms"])) > 0
    assert "private-shop" not in str(line)
    assert "hidden" not in str(line)


async def test_request_without_a_route_is_unmatched(http: httpx.AsyncClient) -> None:
    assert (await line_of(http, "GET", "/private/path"))["route"] == "unmatched"


async def test_wrong_method_is_logged_with_its_route(http: httpx.AsyncClient) -> None:
    assert (await line_of(http, "DELETE", "/api/shop/s/raw"))["route"] == "/api/shop/{shop}/raw"


async def test_probes_are_not_logged(http: httpx.AsyncClient) -> None:
    assert (await line_of(http, "GET", "/readyz"))["log_level"] == "debug"


async def test_requests_are_counted(http: httpx.AsyncClient, registry: CollectorRegistry) -> None:
    await http.get("/api/shop/s/raise/unexpected")
    labels = {"route": "/api/shop/{shop}/raise/{name}", "method": "GET", "status_class": "5xx"}
    assert registry.get_sample_value("relaybox_http_requests_total", labels) == 1
    assert "relaybox_http_requests_total" in (await http.get("/metrics")).text


async def test_cors_allows_tokens_and_exposes_request_ids(http: httpx.AsyncClient) -> None:
    async def asked(headers: str) -> int:
        wanted = {
            "Origin": "https://shop.example",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": headers,
        }
        return (await http.options("/api/shop/s/raw", headers=wanted)).status_code

    ours = "authorization,content-type,idempotency-key,if-match,last-event-id,x-correlation-id,traceparent"
    assert [await asked(one) for one in (ours, "x-basket", "x-other")] == [200, 200, 400]
    answer = await http.get("/healthz", headers={"Origin": "https://shop.example"})
    assert {"ETag", "X-Request-Id"} <= set(answer.headers["access-control-expose-headers"].split(", "))
    other = await http.get("/healthz", headers={"Origin": "https://other.example"})
    assert "access-control-allow-origin" not in other.headers
