"""Open share links, and limit the number of wrong passwords."""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID
from weakref import WeakValueDictionary

from fastapi import Request
from relaybox.db import Database
from shared_types.workspace import NodeKind, Role
from shared_types.workspace_sharing_api import LinkOpened, LinkSeen

from backend.workspace.access import access_of
from backend.workspace.core import ACCESS_SQL, ancestors_from_rows
from backend.workspace.errors import LinkNotFound, LinkPasswordWrong, LinkTriesExceeded
from backend.workspace.http import SHARE_TOKEN_TTL_S, ShareTokens
from backend.workspace.sharing._links import LINKS_SQL, hash_token
from backend.workspace.sharing._passwords import PasswordHasher

__all__ = ("TRIES_FREE", "FoundLink", "LinkOpener")

#: Number of consecutive wrong passwords of a link before further attempts are refused for a time.
TRIES_FREE: Final = 5
_PAUSE_S: Final = 30.0
_PAUSE_S_MAX: Final = 3_600.0
#: Seconds without a wrong password after which the count of wrong passwords decreases by one.
_FORGET_S: Final = 600.0
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundLink:
    """A valid link: a request with a share token of this link may read the node."""

    id: UUID
    node_id: UUID
    role: Role
    has_password: bool
    expires_at: datetime | None
    title: str
    kind: NodeKind

    def view(self) -> LinkSeen:
        """Return what the API shows before the link is opened, such as the title of the node."""
        return LinkSeen(
            title=self.title,
            kind=self.kind,
            role=self.role,
            needs_password=self.has_password,
            expires_at=self.expires_at,
        )


class LinkOpener:
    """Opens share links; an application has one object of this class.

    An attempt is counted as a wrong password before its password is checked, and a correct password resets
    the count. So even concurrent attempts in several processes cannot exceed the limit. A process checks the
    passwords of one link one after the other: otherwise concurrent attempts with the correct password could
    reach the limit.
    """

    def __init__(self, database: Database, share_tokens: ShareTokens, passwords: PasswordHasher) -> None:
        self._database = database
        self._share_tokens = share_tokens
        self.passwords = passwords
        self._locks: WeakValueDictionary[UUID, asyncio.Lock] = WeakValueDictionary()

    async def provide(self, request: Request) -> None:
        """Store this opener in the state of *request*; the router of links depends on this method first."""
        request.state.link_opener = self

    @staticmethod
    def of(request: Request) -> "LinkOpener":
        """Return the opener that :meth:`provide` stored in the state of *request*."""
        opener: LinkOpener = request.state.link_opener
        return opener

    async def find(self, token: str) -> FoundLink:
        """Return the link with *token*.

        Raises:
            LinkNotFound: No link has the token; or the link has expired, or its node is in the bin or
                private.
        """
        if _TOKEN.fullmatch(token) is None:
            raise LinkNotFound
        async with self._database.connection() as connection:
            rows = await connection.fetch(LINKS_SQL["link_of_token"], hash_token(token))
            if not rows:
                raise LinkNotFound
            link = _link_from_row(rows[0])
            chain = await connection.fetch(ACCESS_SQL["ancestors"], link.node_id, None, link.id)
        access = access_of(ancestors_from_rows(chain), None) if chain else None
        if access is None or access.role is None or access.trashed is not None:
            raise LinkNotFound
        return link

    async def open(self, link: FoundLink, password: str | None) -> LinkOpened:
        """Check the password of a link, and issue a share token: for 12 hours, or until the link expires.

        Raises:
            LinkPasswordWrong: The password is wrong or missing; a missing password does not count as an
                attempt.
            LinkTriesExceeded: Too many passwords were wrong; *password* was not checked.
            TooManyPasswords: The process checks too many passwords already; the attempt does not count.
        """
        if link.has_password:
            if password is None:
                raise LinkPasswordWrong
            with self.passwords.limit.slot(str(link.id)):
                async with self._locks.setdefault(link.id, asyncio.Lock()):
                    await self._check_password(link.id, password)
        now = datetime.now(UTC)
        ends_at = now + timedelta(seconds=SHARE_TOKEN_TTL_S)
        if link.expires_at is not None:
            ends_at = min(ends_at, link.expires_at)
        ttl_s = max(0, int((ends_at - now).total_seconds()))
        share_token = self._share_tokens.issue(link.id, ttl_s)
        return LinkOpened(share_token=share_token, expires_at=ends_at, node_id=link.node_id, role=link.role)

    async def _check_password(self, link_id: UUID, password: str) -> None:
        async with self._database.connection() as connection:
            limits = (TRIES_FREE, _PAUSE_S, _PAUSE_S_MAX, _FORGET_S)
            begun = await connection.fetch(LINKS_SQL["begin_password_try"], link_id, *limits)
            left = () if begun else await connection.fetch(LINKS_SQL["remaining_pause"], link_id)
        if not begun:
            # Without a row, the pause has just ended, or the link was revoked: let the client try again in 1
            # s.
            raise LinkTriesExceeded(max(1, left[0]["pause_s"]) if left else 1)
        # The connection was returned to the pool before: hashing takes a quarter of a second.
        if not await self.passwords.is_password(password, begun[0]["password_hash"]):
            raise LinkPasswordWrong
        async with self._database.connection() as connection:
            await connection.fetch(LINKS_SQL["reset_password_tries"], link_id)


def _link_from_row(row: Mapping[str, Any]) -> FoundLink:
    return FoundLink(
        id=row["id"],
        node_id=row["node_id"],
        role=Role(row["role"]),
        has_password=row["has_password"],
        expires_at=row["expires_at"],
        title=row["title"],
        kind=NodeKind(row["kind"]),
    )
