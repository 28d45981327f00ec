"""``If-Match`` and ``ETag``: a change is meant for the version that its sender has read (RFC 9110)."""

import re
from dataclasses import dataclass
from typing import Final, Self

from backend.workspace.errors import IfMatchMissing, VersionStale

__all__ = ("IfMatch", "etag")

#: A strong tag of ours; a weak one never matches, as the comparison is strong.
_TAG: Final = re.compile(r'(?<![^\s,])"(\d{1,10})"')


def etag(version: int) -> str:
    """The strong tag of a version."""
    return f'"{version}"'


@dataclass(frozen=True, slots=True)
class IfMatch:
    """Which versions a change is meant for; null for any (``*``)."""

    versions: frozenset[int] | None

    @classmethod
    def parse(cls, header: str | None) -> Self:
        """Read the header.

        Raises:
            IfMatchMissing: there is none.
        """
        if header is None:
            raise IfMatchMissing
        if header.strip() == "*":
            return cls(None)
        return cls(frozenset(int(tag) for tag in _TAG.findall(header)))

    def check(self, current: int) -> None:
        """Let a change pass that is meant for *current*.

        Raises:
            VersionStale: it is meant for another version.
        """
        if self.versions is not None and current not in self.versions:
            raise VersionStale(current)
