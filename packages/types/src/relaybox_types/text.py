"""Texts that cross the wire: each has a bound and can be stored in PostgreSQL.

PostgreSQL cannot hold the NUL character in TEXT or JSONB, so it is refused here, with a reason, instead of
failing in the middle of a transaction. Surrogates without a partner are refused by Pydantic itself.
"""

from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

__all__ = ["Line", "Paragraph", "Remark", "Word"]


def _without_nul(text: str) -> str:
    if "\x00" in text:
        raise ValueError("must not contain the NUL character (U+0000); remove it")
    return text


# The pattern repeats in JSON Schema what Python checks: something other than blanks, and no NUL.
_SCHEMA = Field(json_schema_extra={"pattern": r"^[^\u0000]*\S[^\u0000]*$"})

Word = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=60),
    AfterValidator(_without_nul),
    _SCHEMA,
]
"""A name, a theme, a tag: 1 to 60 characters."""

Line = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=200),
    AfterValidator(_without_nul),
    _SCHEMA,
]
"""A title or a short sentence: 1 to 200 characters."""

Paragraph = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=1200),
    AfterValidator(_without_nul),
    _SCHEMA,
]
"""A few sentences: 1 to 1,200 characters."""

Remark = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=4000),
    AfterValidator(_without_nul),
    _SCHEMA,
]
"""What a writer tells us in their own words: 1 to 4,000 characters."""
