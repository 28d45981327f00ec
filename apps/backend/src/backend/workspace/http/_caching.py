"""What caches between the API and its clients may keep of responses that depend on a share token."""

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ("ShareTokenCaching",)

_HEADER = b"x-share-token"


class ShareTokenCaching:
    """Keep responses to requests with ``X-Share-Token`` out of shared caches (RFC 9111, section 3.5).

    Caches know that responses to ``Authorization`` are private; of this header they know nothing.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not any(name == _HEADER for name, _ in scope["headers"]):
            await self._app(scope, receive, send)
            return

        async def send_private(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.setdefault("Cache-Control", "private, no-cache")
                headers.add_vary_header("Authorization, X-Share-Token")
            await send(message)

        await self._app(scope, receive, send_private)
