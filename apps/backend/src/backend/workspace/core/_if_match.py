"""``If-Match`` and ``ETag``: the client names the version that a write may change (RFC 9110)."""

import re
from dataclasses import dataclass
from typing import Final, Self

from backend.workspace.errors import IfMatchMalformed, IfMatchMissing, IfMatchWeak, VersionStale

__all__ = ("IfMatch", "etag")

#: An entity tag, weak or strong (RFC 9110, section 8.8.3), and a list of them.
_ENTITY_TAG: Final = r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"'
_TAGS: Final = re.compile(rf"[ \t,]*{_ENTITY_TAG}(?:[ \t]*,[ \t,]*{_ENTITY_TAG})*[ \t,]*")
_STRONG: Final = re.compile(r'(W/)?"([^"]*)"')
#: The content of the entity tags that :func:`etag` returns.
_VERSION: Final = re.compile(r"\d{1,10}")


def etag(version: int) -> str:
    """Return the strong entity tag of a version."""
    return f'"{version}"'


@dataclass(frozen=True, slots=True)
class IfMatch:
    """The versions that the client allows a write to change."""

    #: None if the client allows any version (``*``).
    versions: frozenset[int] | None

    @classmethod
    def parse(cls, header: str | None) -> Self:
        """Parse *header*, the value of ``If-Match``; None stands for a request without this header.

        Raises:
            IfMatchMissing: The header is missing.
            IfMatchMalformed: The header is neither ``*`` nor a list of entity tags.
            IfMatchWeak: All tags are weak; weak tags never match (RFC 9110, section 13.1.1).
        """
        if header is None:
            raise IfMatchMissing
        if header.strip() == "*":
            return cls(None)
        if _TAGS.fullmatch(header) is None:
            raise IfMatchMalformed
        strong = [tag for weak, tag in _STRONG.findall(header) if not weak]
        if not strong:
            raise IfMatchWeak
        return cls(frozenset(int(tag) for tag in strong if _VERSION.fullmatch(tag)))

    def check(self, current: int) -> None:
        """Check that a write may change *current*, the version in the database.

        Raises:
            VersionStale: *current* is not one of the versions that the client allows.
        """
        if self.versions is not None and current not in self.versions:
            raise VersionStale(current)
