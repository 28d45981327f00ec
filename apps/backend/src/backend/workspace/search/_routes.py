"""Search over HTTP: titles, descriptions and players of what one may read."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from relaybox.db import load_queries
from relaybox.http import TokenMissing, ValidationFailed
from shared_types.workspace_search_api import FoundIn, SearchHit, SearchPage

from backend.workspace.http import (
    READ_ERRORS,
    Requester,
    RouteDependencies,
    cursor_int,
    cursor_time,
    decode_cursor,
    documented_errors,
    encode_cursor,
)

__all__ = ("add_search_routes",)

_SQL: Final = load_queries(__package__ or "backend.workspace.search", "search.sql")
#: By the ``rank`` of the query.
_PLACES: Final[tuple[FoundIn, ...]] = (FoundIn.PLAYERS, FoundIn.CHAPTER, FoundIn.DESCRIPTION, FoundIn.TITLE)
_WILD: Final = re.compile(r"[\\%_]")
Words = Annotated[
    str,
    # PostgreSQL takes no NUL.
    Query(min_length=1, max_length=200, pattern=r"^[^\u0000]*[^\u0000\s][^\u0000]*$"),
]


def add_search_routes(router: APIRouter, deps: RouteDependencies) -> None:
    """``GET /search``."""

    @router.get(
        "/search",
        summary="Find words in titles, descriptions and names of players",
        responses=documented_errors(*READ_ERRORS, ValidationFailed),
    )
    async def search(
        requester: Annotated[Requester, Depends(deps.requester)],
        q: Words,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        cursor: Annotated[str | None, Query(max_length=200)] = None,
    ) -> SearchPage:
        if requester == Requester(subject=None):
            raise TokenMissing
        place = decode_cursor(cursor, cursor_int, cursor_time, UUID)
        async with deps.backbone.database.connection() as connection:
            rows = await connection.fetch(
                _SQL["search"], requester.subject, requester.link_id, _pattern(q), *place, limit + 1
            )
        last = rows[limit - 1] if len(rows) > limit else None
        following = encode_cursor(last["rank"], last["created_at"], last["hit_id"]) if last else None
        return SearchPage(items=[_hit(row) for row in rows[:limit]], next_cursor=following)

    _ = search


def _pattern(words: str) -> str:
    """*words* as they stand, anywhere in a text, for ``ILIKE``."""
    return "%" + _WILD.sub(r"\\\g<0>", words.strip()) + "%"


def _hit(row: Mapping[str, Any]) -> SearchHit:
    rank: int = row["rank"]
    return SearchHit(
        node_id=row["node_id"],
        kind=row["kind"],
        title=row["title"],
        chapter_id=row["chapter_id"],
        chapter_title=row["chapter_title"],
        found_in=_PLACES[rank],
    )
