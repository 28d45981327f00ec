"""Tickets: what a link that was opened gives its reader, to be shown with every request."""

from typing import Final
from uuid import UUID

from relaybox.http import SharedSecretVerifier, TokenExpired, TokenInvalid, make_token
from relaybox.settings import JwtSettings

from backend.workspace.errors import ShareTokenInvalid

__all__ = ("SHARE_TOKEN_TTL_S", "ShareTokens")

#: Twelve hours: a day's lessons. What the link is worth is looked up each time.
SHARE_TOKEN_TTL_S: Final = 12 * 3_600


class ShareTokens:
    """Signs and reads tickets, JWTs by the secret of bearer tokens and for an audience of their own.

    So a ticket is refused where a bearer token is asked for, and a bearer token where a ticket is (RFC 8725,
    section 3.9). A ticket names a link and nothing else: who holds it may do what the link says by then.
    """

    def __init__(self, settings: JwtSettings) -> None:
        self._settings = settings.model_copy(update={"audience": f"{settings.audience}/links"})
        self._verifier = SharedSecretVerifier(self._settings)

    def issue(self, link_id: UUID, ttl_s: int = SHARE_TOKEN_TTL_S) -> str:
        """A ticket for *link_id* that holds for *ttl_s* seconds."""
        return make_token(self._settings, str(link_id), ttl_s)

    async def read_link_id(self, ticket: str) -> UUID:
        """The link that *ticket* names; no I/O.

        Raises:
            ShareTokenInvalid: it is none of ours, or too old.
        """
        try:
            return UUID((await self._verifier.verify(ticket)).subject)
        except (TokenInvalid, TokenExpired, ValueError):
            raise ShareTokenInvalid from None
