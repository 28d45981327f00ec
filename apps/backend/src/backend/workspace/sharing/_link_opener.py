"""Opening links: without a token of one's own, with a password where there is one."""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID
from weakref import WeakValueDictionary

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

#: Wrong passwords in a row before tries are refused for a while.
TRIES_FREE: Final = 5
_PAUSE_S: Final = 30.0
_PAUSE_S_MAX: Final = 3_600.0
#: One wrong password is forgotten after so long without another.
_FORGET_S: Final = 600.0
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundLink:
    """A link that leads somewhere."""

    id: UUID
    node_id: UUID
    role: Role
    has_password: bool
    expires_at: datetime | None
    title: str
    kind: NodeKind

    def view(self) -> LinkSeen:
        """What anybody may see who has the link."""
        return LinkSeen(
            title=self.title,
            kind=self.kind,
            role=self.role,
            needs_password=self.has_password,
            expires_at=self.expires_at,
        )


class LinkOpener:
    """Opens links on one database; each process has one.

    Tries with a password go one after the other for each link in a process: so a class that opens the same
    link at once, rightly, is never taken for somebody who guesses.
    """

    def __init__(self, database: Database, share_tokens: ShareTokens, passwords: PasswordHasher) -> None:
        self._database = database
        self._tickets = share_tokens
        self._passwords = passwords
        self._locks: WeakValueDictionary[UUID, asyncio.Lock] = WeakValueDictionary()

    async def find(self, token: str) -> FoundLink:
        """The link that *token* is.

        Raises:
            LinkNotFound: it is none, or leads nowhere any more.
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
        """A ticket for a link that was found, for who knows its password.

        Raises:
            LinkPasswordWrong: this is not the password; nobody has tried if there was none.
            LinkTriesExceeded: there were too many wrong ones; whether this one is right is not looked at.
            TooManyPasswords: too many are under way; the try does not count.
        """
        if link.has_password:
            if password is None:
                raise LinkPasswordWrong
            with self._passwords.limit.slot(str(link.id)):
                async with self._locks.setdefault(link.id, asyncio.Lock()):
                    await self._check_password(link.id, password)
        now = datetime.now(UTC)
        ends_at = now + timedelta(seconds=SHARE_TOKEN_TTL_S)
        if link.expires_at is not None:
            ends_at = min(ends_at, link.expires_at)
        ttl_s = max(0, int((ends_at - now).total_seconds()))
        ticket = self._tickets.issue(link.id, ttl_s)
        return LinkOpened(share_token=ticket, expires_at=ends_at, node_id=link.node_id, role=link.role)

    async def _check_password(self, link_id: UUID, password: str) -> None:
        async with self._database.connection() as connection:
            limits = (TRIES_FREE, _PAUSE_S, _PAUSE_S_MAX, _FORGET_S)
            begun = await connection.fetch(LINKS_SQL["begin_password_try"], link_id, *limits)
            left = () if begun else await connection.fetch(LINKS_SQL["remaining_pause"], link_id)
        if not begun:
            # A pause that has just ended is over for the next request; that one finds no link which is gone.
            raise LinkTriesExceeded(max(1, left[0]["pause_s"]) if left else 1)
        # No connection is held while a thread works.
        if not await self._passwords.is_password(password, begun[0]["password_hash"]):
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
