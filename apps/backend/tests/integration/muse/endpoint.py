"""A local server of the chat-completions protocol with scripted responses."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from pydantic_core import from_json, to_json
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route


def says(content: str | None) -> Response:
    """Return a completion with *content*."""
    message = {"role": "assistant", "content": content}
    return JSONResponse(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": "test-model",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        }
    )


def fails(status: int, **headers: str) -> Response:
    """Return an error that contains the key, as endpoints do; to be retried at once."""
    error = {"error": {"message": "Incorrect API key provided: sk-secret", "type": "x", "code": "y"}}
    return JSONResponse(
        error, status, {"retry-after-ms": "1", **{k.replace("_", "-"): v for k, v in headers.items()}}
    )


def json_of(document: object) -> str:
    """Return the document as a model writes it."""
    return to_json(document).decode()


@dataclass
class Endpoint:
    """The remaining responses (None for no response), and the received requests."""

    base_url: str
    script: list[Response | None] = field(default_factory=list[Response | None])
    asked: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    keys: list[str] = field(default_factory=list[str])
    closing: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, request: Request) -> Response:
        """Return the next response of the script."""
        self.asked.append(from_json(await request.body()))
        self.keys.append(request.headers["authorization"])
        answer = self.script.pop(0)
        if answer is None:
            await self.closing.wait()
            return Response(status_code=503)
        return answer


@asynccontextmanager
async def running_endpoint() -> AsyncIterator[Endpoint]:
    """Run an endpoint on a free port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        endpoint = Endpoint(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}/v1")
        app = Starlette(routes=[Route("/v1/chat/completions", endpoint.answer, methods=["POST"])])
        config = uvicorn.Config(app, log_config=None, lifespan="off", ws="none", timeout_graceful_shutdown=5)
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve([listener]))
        try:
            yield endpoint
        finally:
            endpoint.closing.set()
            server.should_exit = True
            await serving
