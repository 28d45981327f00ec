"""Issue and verify share tokens (``X-Share-Token``).

Responses to requests with a share token are kept out of shared caches.
"""

from typing import Final
from uuid import UUID

from relaybox.http import SharedSecretVerifier, TokenExpired, TokenInvalid, make_token
from relaybox.settings import JwtSettings
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend.workspace.errors import ShareTokenInvalid

__all__ = ("SHARE_HEADER", "SHARE_TOKEN_TTL_S", "ShareTokenCaching", "ShareTokens")

SHARE_HEADER: Final = "X-Share-Token"
"""The request header with a share token."""
#: Seconds for which a share token is valid: twelve hours, one day of lessons. Role and expiry of the link are
#: read again for each request.
SHARE_TOKEN_TTL_S: Final = 12 * 3_600


class ShareTokens:
    """Issues and verifies share tokens: JWTs with the secret of bearer tokens, but with another audience.

    Because of the audience, a share token is not valid as a bearer token, nor a bearer token as a share token
    (RFC 8725, section 3.9). The subject of a share token is the id of a link; a request with the token has
    the role that the link gives at the time of the request.
    """

    def __init__(self, settings: JwtSettings) -> None:
        self._settings = settings.model_copy(update={"audience": f"{settings.audience}/links"})
        self._verifier = SharedSecretVerifier(self._settings)

    def issue(self, link_id: UUID, ttl_s: int = SHARE_TOKEN_TTL_S) -> str:
        """Return a share token for *link_id* that is valid for *ttl_s* seconds."""
        return make_token(self._settings, str(link_id), ttl_s)

    async def read_link_id(self, share_token: str) -> UUID:
        """Return the id of the link in *share_token*; PostgreSQL is not asked whether the link exists.

        Raises:
            ShareTokenInvalid: The token is not valid, or has expired.
        """
        try:
            return UUID((await self._verifier.verify(share_token)).subject)
        except (TokenInvalid, TokenExpired, ValueError):
            raise ShareTokenInvalid from None


class ShareTokenCaching:
    """Middleware that keeps responses to requests with a share token out of shared caches.

    Shared caches do not store responses to requests with ``Authorization`` (RFC 9111, section 3.5), but do
    not know ``X-Share-Token``.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        header = SHARE_HEADER.lower().encode()
        if scope["type"] != "http" or not any(name == header for name, _ in scope["headers"]):
            await self._app(scope, receive, send)
            return

        async def send_private(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.setdefault("Cache-Control", "private, no-cache")
                headers.add_vary_header("Authorization, X-Share-Token")
            await send(message)

        await self._app(scope, receive, send_private)
