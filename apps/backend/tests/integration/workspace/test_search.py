"""Search finds words in nodes that the user may read, and reads no rows of other users."""

import re
from typing import Any

import pytest
from backend.workspace.search import _routes as search_routes
from relaybox.db import Database

from tests.fixtures.studies import StudyFactory
from tests.fixtures.studio import Person, Studio

GAME = '[White "Judit Polgár"]\n[Black "Garry Kasparov"]\n[Event "Moscow"]\n[ChapterName "One"]\n\n1. e4 *'
#: So many trees of other users that a plan which scans the whole table would be noticed.
OTHERS = """
INSERT INTO workspace_nodes (id, kind, parent_id, owner_id, title, created_by, created_at, changed_at)
SELECT gen_random_uuid(), 'study', NULL, 'other ' || n, 'Endgames ' || n, 'other', now(), now()
FROM generate_series(1, 20000) AS n
"""
CHAPTERS = """
INSERT INTO workspace_chapters (node_id, position, title, created_at, changed_at)
SELECT id, 0, 'Endgames', now(), now() FROM workspace_nodes WHERE owner_id LIKE 'other %'
"""


async def found(person: Person, words: str, **options: Any) -> list[tuple[str, str | None, str]]:
    """Return node title, chapter title and place of the match for each result, in order."""
    seen: list[tuple[str, str | None, str]] = []
    params = {"q": words, **options}
    while True:
        page = await person.call("GET", "/search", params=params)
        seen += [(one["title"], one["chapter_title"], one["found_in"]) for one in page["items"]]
        if page["next_cursor"] is None:
            return seen
        params["cursor"] = page["next_cursor"]


async def test_words_are_found_in_titles_descriptions_chapters_and_players(
    studio: Studio, studies: StudyFactory
) -> None:
    root = await studio.teacher.node("workspace", "Moscow club")
    study = await studio.teacher.node("study", "Games", root, description="of the Moscow open")
    await studies.chapter(GAME, study=study)
    await studies.chapter('[Event "Moscow"]\n[ChapterName "Moscow"]\n\n1. d4 *', study=study, position=1)
    everything = await found(studio.teacher, "mOSCOW", limit=1)
    assert everything == [
        ("Moscow club", None, "title"),
        ("Games", None, "description"),
        ("Games", "Moscow", "chapter"),
        ("Games", "One", "players"),
    ]
    for player in ("polgár", "  kasparov "):
        assert await found(studio.teacher, player) == [("Games", "One", "players")]


@pytest.mark.parametrize(("words", "title"), [("100%", "100% sure"), ("a_b", "a_b"), (r"c\d", r"c\d")])
async def test_search_treats_wildcards_as_text(studio: Studio, words: str, title: str) -> None:
    for one in ("100 times", "axb", "cd", title):
        await studio.teacher.node("folder", one)
    assert await found(studio.teacher, words) == [(title, None, "title")]


async def test_search_omits_hidden_nodes(studio: Studio) -> None:
    root = await studio.teacher.node("workspace", "Endgames of all")
    hidden = await studio.teacher.node("folder", "Endgames, private", root, visibility="private")
    await studio.teacher.node("study", "Endgames, shared again", hidden, visibility="shared")
    inner = await studio.teacher.node("folder", "Endgames, inner", root)
    trashed = await studio.teacher.node("folder", "Endgames, trashed", inner)
    await studio.teacher.node("study", "Endgames, trashed too", trashed)
    await studio.teacher.call("DELETE", f"/nodes/{trashed['id']}", match=1)
    await studio.stranger.node("workspace", "Endgames, public", visibility="public")
    everything = {title for title, _, _ in await found(studio.teacher, "endgames")}
    assert everything == {
        "Endgames of all",
        "Endgames, private",
        "Endgames, shared again",
        "Endgames, inner",
    }
    for node in (root, inner):
        await studio.teacher.share(node, "pupil", "viewer")
    shown = [title for title, _, _ in await found(studio.pupil, "endgames")]
    assert sorted(shown) == sorted(everything - {"Endgames, private"})
    assert await found(studio.person("without-grants"), "endgames") == []
    assert await studio.anonymous.error_code(401, "GET", "/search?q=endgames") == "TOKEN_MISSING"


async def test_search_finds_no_node_granted_in_a_trashed_or_private_tree(studio: Studio) -> None:
    roots = [await studio.teacher.node("workspace", f"Root {number}") for number in range(2)]
    for root in roots:
        inner = await studio.teacher.node("folder", "Endgames", root)
        await studio.teacher.share(inner, "pupil", "viewer")
    assert len(await found(studio.pupil, "endgames")) == 2
    await studio.teacher.call("DELETE", f"/nodes/{roots[0]['id']}", match=1)
    await studio.teacher.call("PATCH", f"/nodes/{roots[1]['id']}", {"visibility": "private"}, match=1)
    assert await found(studio.pupil, "endgames") == []


async def test_search_with_a_share_link_finds_its_node(studio: Studio) -> None:
    root = await studio.teacher.node("workspace", "Endgames of all")
    inner = await studio.teacher.node("folder", "Endgames, inner", root)
    link = await studio.teacher.link(inner, "viewer")
    guest = await studio.anonymous.open_link(link)
    assert await found(guest, "endgames") == [("Endgames, inner", None, "title")]
    await studio.teacher.call("DELETE", f"/share/links/{link['id']}")
    assert await found(guest, "endgames") == []


async def test_search_reads_no_rows_of_other_users(studio: Studio, database: Database) -> None:
    root = await studio.teacher.node("workspace", "Endgames of all")
    await studio.teacher.node("study", "Endgames, inner", root)
    theirs = await studio.stranger.node("workspace", "Endgames of others")
    await studio.stranger.share(theirs, "teacher", "viewer")
    async with database.connection() as connection:
        await connection.fetch(OTHERS)
        await connection.fetch(CHAPTERS)
        await connection.fetch("ANALYZE workspace_nodes, workspace_chapters, workspace_grants")
        plan = await connection.fetch(
            "EXPLAIN (ANALYZE, TIMING off) " + search_routes._SQL["search"],
            *("teacher", None, "%endgames%", None, None, None, 21),
        )
    lines = [row["QUERY PLAN"] for row in plan]
    whole_tables = [line for line in lines if re.search(r"Seq Scan on workspace_(nodes|chapters)", line)]
    assert whole_tables == []
    assert len(await found(studio.teacher, "endgames")) == 3


@pytest.mark.parametrize(
    "query", ["", "q=", "q=%20", "q=%00", "q=" + "x" * 201, "q=x&limit=0", "q=x&cursor=x"]
)
async def test_invalid_search_is_refused(studio: Studio, query: str) -> None:
    assert await studio.teacher.error_code(422, "GET", f"/search?{query}") == "VALIDATION_ERROR"
