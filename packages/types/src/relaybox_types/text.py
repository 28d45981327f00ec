"""Define types of text with a maximum length that PostgreSQL can store.

PostgreSQL cannot store the NUL character in TEXT or JSONB. These types refuse a text with NUL, because a
transaction would fail otherwise. Pydantic refuses unpaired surrogates, which PostgreSQL cannot store either.
"""

from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

__all__ = ["Line", "Paragraph", "Remark", "Word"]


def _without_nul(text: str) -> str:
    if "\x00" in text:
        raise ValueError("must not contain the NUL character (U+0000); remove it")
    return text


# The same check for JSON Schema: at least one character that is not white space, and no NUL.
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
"""Free text: 1 to 4,000 characters."""
