"""The route ``GET /search``: search nodes and chapters that the requester owns or that are shared with them.

The query is searched in titles and descriptions of nodes, and in titles and players of chapters. Public trees
of other users are not searched.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Query
from relaybox.db import load_queries
from relaybox.http import TokenMissing, ValidationFailed
from shared_types.workspace_search_api import FoundIn, SearchHit, SearchPage

from backend.workspace.http import (
    READ_ERRORS,
    CurrentRequester,
    Cursor,
    Dependencies,
    cursor_int,
    cursor_time,
    decode_cursor,
    documented_errors,
    encode_cursor,
)

__all__ = ("search_router",)

_SQL: Final = load_queries(__package__ or "backend.workspace.search", "search.sql")
#: The field that contains the searched text, by the value of the column ``rank`` in the result of the query.
_FOUND_IN: Final[tuple[FoundIn, ...]] = (FoundIn.PLAYERS, FoundIn.CHAPTER, FoundIn.DESCRIPTION, FoundIn.TITLE)
_WILDCARD: Final = re.compile(r"[\\%_]")
Words = Annotated[
    str,
    # PostgreSQL cannot store NUL in a text.
    Query(min_length=1, max_length=200, pattern=r"^[^\u0000]*[^\u0000\s][^\u0000]*$"),
]
search_router = APIRouter()


@search_router.get(
    "/search",
    summary="Search titles, descriptions and names of players",
    responses=documented_errors(*READ_ERRORS, ValidationFailed),
)
async def search(
    dependencies: Dependencies,
    requester: CurrentRequester,
    q: Words,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Cursor = None,
) -> SearchPage:
    if requester.is_anonymous:
        raise TokenMissing
    after = decode_cursor(cursor, cursor_int, cursor_time, UUID)
    async with dependencies.database.connection() as connection:
        rows = await connection.fetch(
            _SQL["search"], requester.subject, requester.link_id, _ilike_pattern(q), *after, limit + 1
        )
    last = rows[limit - 1] if len(rows) > limit else None
    next_cursor = encode_cursor(last["rank"], last["created_at"], last["hit_id"]) if last else None
    return SearchPage(items=[_hit(row) for row in rows[:limit]], next_cursor=next_cursor)


def _ilike_pattern(words: str) -> str:
    """Return a pattern for ``ILIKE`` that finds *words* literally, anywhere in a text."""
    return "%" + _WILDCARD.sub(r"\\\g<0>", words.strip()) + "%"


def _hit(row: Mapping[str, Any]) -> SearchHit:
    rank: int = row["rank"]
    return SearchHit(
        node_id=row["node_id"],
        kind=row["kind"],
        title=row["title"],
        chapter_id=row["chapter_id"],
        chapter_title=row["chapter_title"],
        found_in=_FOUND_IN[rank],
    )
