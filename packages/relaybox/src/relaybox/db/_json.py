"""Find the NUL character in JSON before PostgreSQL rejects it and aborts the transaction."""

import re
from typing import Final

__all__ = ("contains_nul",)

#: An escaped NUL: "u0000" after an odd number of backslashes; after an even number it is plain text.
_NUL: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


def contains_nul(document: bytes) -> bool:
    """Return whether *document*, JSON in UTF-8, contains an escaped NUL, which JSONB rejects."""
    return b"\\u0000" in document and _NUL.search(document) is not None
