"""What PostgreSQL's JSONB cannot hold, found before it aborts a transaction."""

import re
from typing import Final

__all__ = ("contains_nul",)

#: An escaped NUL; after an even number of backslashes, else it is a backslash and "u0000".
_NUL: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


def contains_nul(document: bytes) -> bool:
    """Whether a JSON text holds the NUL character, in a value or a name; JSONB refuses it."""
    return b"\\u0000" in document and _NUL.search(document) is not None
