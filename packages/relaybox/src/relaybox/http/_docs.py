"""Serve the OpenAPI document and Swagger UI, whose files come from a Python package and not from a CDN."""

from collections.abc import Callable
from functools import cached_property
from html import escape
from importlib.resources import files
from typing import Any, Final

from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Scope

__all__ = ("add_plain_route", "install_docs")

#: Load balancers use HEAD; the server omits the body.
_GET_AND_HEAD: Final = ["GET", "HEAD"]
_MEDIA_TYPES: Final = {"js": "text/javascript", "css": "text/css", "png": "image/png"}
_FROM_WHEEL: Final = frozenset({"swagger-ui-bundle.js", "swagger-ui.css", "favicon-32x32.png"})
#: Content-Security-Policy with which the browser loads nothing from other hosts.
_POLICY: Final = (
    "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
#: The page ``/docs``; its URLs are relative, so that the page works behind a proxy with a path prefix.
_PAGE: Final = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="stylesheet" href="docs/assets/swagger-ui.css">
<link rel="icon" type="image/png" href="docs/assets/favicon-32x32.png">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/assets/swagger-ui-bundle.js"></script>
<script src="docs/assets/start.js"></script>
</body>
</html>
"""
#: The script of the page. ``validatorUrl`` is null, because by default the page sends the document to a
#: public validator.
_START: Final = """SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  persistAuthorization: true,
  validatorUrl: null,
});
"""


def install_docs(app: FastAPI) -> None:
    """Serve ``/docs`` and ``/openapi.json`` of *app*."""
    page = _PAGE.format(title=escape(app.title)).encode()

    async def openapi() -> Response:
        return Response(to_json(app.openapi()), media_type="application/json")

    async def docs() -> Response:
        return Response(page, media_type="text/html", headers={"Content-Security-Policy": _POLICY})

    add_plain_route(app, "/openapi.json", openapi)
    add_plain_route(app, "/docs", docs)
    add_plain_route(app, "/docs/assets/{name}", _asset)


class _PlainRoute(APIRoute):
    """A route that rejects most other paths by a search for a text, before FastAPI's regular expression.

    Each request is compared with the routes of health and documentation before the routes of the application.
    With ordinary routes of FastAPI these comparisons took 2.5 % of the time of a command (measured without a
    database).
    """

    @cached_property
    def _fixed_part(self) -> str:
        return self.path.partition("{")[0]

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match as FastAPI does, after checking that the path contains the fixed part of the route."""
        if self._fixed_part not in scope["path"]:
            return Match.NONE, {}
        return super().matches(scope)


def add_plain_route(app: FastAPI, path: str, endpoint: Callable[..., Any]) -> None:
    """Serve *endpoint* at *path* for GET and HEAD; the OpenAPI document does not contain it."""
    app.router.add_api_route(
        path, endpoint, methods=_GET_AND_HEAD, include_in_schema=False, route_class_override=_PlainRoute
    )


def _asset(name: str) -> Response:
    if name == "start.js":
        content = _START.encode()
    elif name in _FROM_WHEEL:
        content = files("fastapi_swagger.resources").joinpath(name).read_bytes()
    else:
        raise HTTPException(404)
    media_type = _MEDIA_TYPES[name.rpartition(".")[2]]
    return Response(content, media_type=media_type, headers={"Cache-Control": "public, max-age=86400"})
