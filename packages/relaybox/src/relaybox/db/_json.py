"""Find characters that JSONB cannot store, before they abort a transaction."""

import re
from typing import Final

__all__ = ("contains_nul",)

#: An escaped NUL. After an odd number of backslashes, "u0000" is plain text.
_NUL: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


def contains_nul(document: bytes) -> bool:
    """Return whether a JSON text contains the NUL character, which JSONB rejects."""
    return b"\\u0000" in document and _NUL.search(document) is not None
