"""Versions of a study: storing, comparing and restoring them without losing anything."""

import asyncio
from typing import Any

import pytest
from backend.rebuilding import rebuild
from backend.workspace import NodeProjection
from backend.workspace.http import encode_cursor
from relaybox.db import Database

from tests.fixtures.studies import Chapter, StudyFactory
from tests.fixtures.studio import Studio


async def say(studio: Studio, chapter: Chapter, text: str) -> None:
    path = f"{chapter.path}/moves/e2e4/annotation"
    await studio.teacher.call("PUT", path, {"text": text}, match="*")


async def kept(studio: Studio, chapter: Chapter, label: str = "") -> Any:
    return await studio.teacher.call("POST", f"{chapter.study_path}/versions", {"label": label})


async def test_version_is_a_copy_of_the_study(
    studio: Studio, studies: StudyFactory, database: Database
) -> None:
    chapter = await studies.chapter()
    await studies.chapter("1. d4 d5", study=chapter.study, position=1)
    before = (await studio.teacher.call("GET", chapter.study_path))["version"]
    answer = await studio.teacher.send("POST", f"{chapter.study_path}/versions", {"label": " first "})
    version = answer.json()
    assert answer.headers["location"] == f"/api/v1{chapter.study_path}/versions/1"
    assert (version["number"], version["label"], version["chapters_count"]) == (1, "first", 2)
    assert (version["restored_from"], version["created_by"]) == (None, "teacher")
    await say(studio, chapter, "later")
    detail = await studio.teacher.call("GET", f"{chapter.study_path}/versions/1")
    assert (detail["number"], detail["title"]) == (1, chapter.study["title"])
    assert detail["chapters"][0]["id"] == str(chapter.id)
    assert detail["chapters"][0]["moves"]["moves"][0] == {"parent": -1, "uci": "e2e4"}
    assert detail["chapters"][1]["title"] == "Game 1"
    # Storing a version does not change the study.
    assert (await studio.teacher.call("GET", chapter.study_path))["version"] == before
    types = [event.type for event in await studio.stream(chapter.study["id"])]
    assert types[-2:] == ["study.snapshot_created", "study.chapter.annotation_updated"]
    found: list[object] = []
    await rebuild(database, NodeProjection(), write=False, on_difference=found.append)
    assert found == []


async def test_versions_are_listed_newest_first_and_paged(studio: Studio, studies: StudyFactory) -> None:
    chapter = await studies.chapter()
    assert await studio.teacher.call("GET", f"{chapter.study_path}/versions") == {
        "items": [],
        "next_cursor": None,
    }
    for number in range(1, 6):
        assert (await kept(studio, chapter, f"v{number}"))["number"] == number
    seen: list[str] = []
    query = f"{chapter.study_path}/versions?limit=2"
    page = await studio.teacher.call("GET", query)
    while page["next_cursor"] is not None:
        seen += [one["label"] for one in page["items"]]
        page = await studio.teacher.call("GET", f"{query}&cursor={page['next_cursor']}")
    assert [*seen, *(one["label"] for one in page["items"])] == ["v5", "v4", "v3", "v2", "v1"]


async def test_diff_shows_changes_to_the_present_or_another_version(
    studio: Studio, studies: StudyFactory
) -> None:
    chapter = await studies.chapter()
    await kept(studio, chapter)
    await say(studio, chapter, "new")
    body = {"after": "e2e4.c7c5.g1f3", "move": "d6"}
    await studio.teacher.call("POST", f"{chapter.path}/moves", body, match="*")
    await kept(studio, chapter)
    added = await studies.chapter("1. d4", study=chapter.study, position=1)
    await studio.teacher.call("DELETE", f"{chapter.path}/moves/e2e4.e7e5", match="*")
    change = {"title": "New", "description": "New"}
    await studio.teacher.call("PATCH", chapter.study_path, change, match="*")
    diff = f"{chapter.study_path}/versions/1/diff"
    between = await studio.teacher.call("GET", f"{diff}?against=2")
    assert (between["version"], between["against"], between["title_changed"]) == (1, 2, False)
    [of] = between["changed"]
    assert (of["annotated"], of["moves_added"]) == (["e2e4"], [{"path": "e2e4.c7c5.g1f3.d7d6", "moves": 1}])
    assert (of["moves_removed_count"], between["added"], between["description_changed"]) == (0, [], False)
    until_now = await studio.teacher.call("GET", diff)
    assert (until_now["against"], until_now["title_changed"], until_now["description_changed"]) == (
        *("current", True),
        True,
    )
    assert until_now["added"] == [{"chapter_id": str(added.id), "title": "Game 1"}]
    assert until_now["changed"][0]["moves_removed"] == [{"path": "e2e4.e7e5", "moves": 2}]
    same = await studio.teacher.call("GET", f"{diff}?against=1")
    assert (same["added"], same["changed"], same["reordered"]) == ([], [], False)


async def test_rollback_is_a_new_version_and_stores_the_former_state(
    studio: Studio, studies: StudyFactory, database: Database
) -> None:
    chapter = await studies.chapter()
    await kept(studio, chapter, "good")
    await say(studio, chapter, "worse")
    added = await studies.chapter("1. d4", study=chapter.study, position=1)
    await studio.teacher.call("PATCH", chapter.study_path, {"title": "New", "description": "New"}, match=3)
    path = f"{chapter.study_path}/rollback"
    answer = await studio.teacher.send("POST", path, {"version": 1}, match=4)
    version = answer.json()
    assert (answer.status_code, answer.headers["etag"]) == (201, '"5"')
    assert answer.headers["location"] == f"/api/v1{chapter.study_path}/versions/3"
    assert (version["number"], version["restored_from"], version["chapters_count"]) == (3, 1, 1)
    study = await studio.teacher.call("GET", chapter.study_path)
    # The title stays, because another study may have the former title now.
    assert (study["title"], study["description"], study["version"]) == ("New", "", 5)
    assert [one["id"] for one in study["chapters"]] == [str(chapter.id)]
    shown = await studio.teacher.send("GET", chapter.path)
    assert shown.json()["moves"][0]["text"] == ""
    # No former ETag matches the restored chapter.
    assert shown.headers["etag"] not in ('"1"', '"2"')
    assert await studio.teacher.error_code(404, "GET", added.path) == "NOT_FOUND_IN_NODE"
    events = await studio.stream(chapter.study["id"])
    assert [one.type for one in events[-2:]] == ["study.snapshot_created", "study.rolled_back"]
    assert events[-1].causation_id == events[-2].event_id
    before = await studio.teacher.call("GET", f"{chapter.study_path}/versions/2")
    assert (before["label"], before["chapters_count"]) == ("before going back to version 1", 2)
    await studio.teacher.call("POST", path, {"version": 2}, match=5)
    assert (await studio.teacher.call("GET", added.path))["title"] == "Game 1"
    assert (await studio.teacher.call("GET", chapter.path))["moves"][0]["text"] == "worse"
    found: list[object] = []
    await rebuild(database, NodeProjection(), write=False, on_difference=found.append)
    assert found == []


async def test_rollback_does_not_store_an_unchanged_state_again(
    studio: Studio, studies: StudyFactory
) -> None:
    chapter = await studies.chapter("1. e4 { [%clk 0:10:00.5] } *")
    await kept(studio, chapter)
    path = f"{chapter.study_path}/rollback"
    # The study equals its latest version: a rollback would lose nothing.
    assert (await studio.teacher.call("POST", path, {"version": 1}, match=2))["number"] == 2
    assert (await studio.teacher.call("POST", path, {"version": 1}, match=3))["number"] == 3
    page = await studio.teacher.call("GET", f"{chapter.study_path}/versions")
    assert [one["restored_from"] for one in page["items"]] == [1, 1, None]


async def test_rollback_requires_the_version_of_the_study(studio: Studio, studies: StudyFactory) -> None:
    chapter = await studies.chapter()
    await kept(studio, chapter)
    path = f"{chapter.study_path}/rollback"
    assert await studio.teacher.error_code(428, "POST", path, {"version": 1}) == "IF_MATCH_MISSING"
    assert await studio.teacher.error_code(412, "POST", path, {"version": 1}, match=1) == "VERSION_STALE"
    tries = [studio.teacher.send("POST", path, {"version": 1}, match=2) for _ in range(3)]
    assert sorted(one.status_code for one in await asyncio.gather(*tries)) == [201, 412, 412]
    page = await studio.teacher.call("GET", f"{chapter.study_path}/versions")
    assert [one["number"] for one in page["items"]] == [2, 1]


async def test_concurrent_versions_are_numbered_without_gaps(studio: Studio, studies: StudyFactory) -> None:
    chapter = await studies.chapter()
    made = await asyncio.gather(*(kept(studio, chapter) for _ in range(5)))
    assert sorted(one["number"] for one in made) == [1, 2, 3, 4, 5]


async def test_version_with_a_key_is_stored_once(studio: Studio, studies: StudyFactory) -> None:
    chapter = await studies.chapter()
    for below, body, headers in [
        ("/versions", {"label": "x"}, {}),
        ("/rollback", {"version": 1}, {"match": 2}),
    ]:
        once: dict[str, Any] = {"headers": {"Idempotency-Key": below}, **headers}
        first = await studio.teacher.send("POST", chapter.study_path + below, body, **once)
        again = await studio.teacher.send("POST", chapter.study_path + below, body, **once)
        assert (first.status_code, again.status_code, again.content) == (201, 201, first.content)
        assert again.headers["idempotent-replayed"] == "true"
        assert again.headers["location"] == first.headers["location"]
    page = await studio.teacher.call("GET", f"{chapter.study_path}/versions")
    assert [one["number"] for one in page["items"]] == [2, 1]


@pytest.mark.guarantee("G82")
async def test_invalid_version_is_refused(studio: Studio, studies: StudyFactory) -> None:
    chapter = await studies.chapter()
    await kept(studio, chapter)
    big = 10**12
    for method, below, body in [
        ("POST", "/versions", {"label": "l" * 201}),
        ("POST", "/versions", {"label": None}),
        ("POST", "/versions", {"number": 3}),
        ("POST", "/rollback", {}),
        ("POST", "/rollback", {"version": 0}),
        ("POST", "/rollback", {"version": "last"}),
        ("POST", "/rollback", {"version": big}),
        ("GET", "/versions?limit=0", None),
        ("GET", f"/versions?cursor={encode_cursor(big)}", None),
        ("GET", "/versions?cursor=x", None),
        ("GET", "/versions/0", None),
        ("GET", "/versions/last", None),
        ("GET", f"/versions/{big}", None),
        ("GET", "/versions/1/diff?against=last", None),
        ("GET", f"/versions/1/diff?against={big}", None),
    ]:
        path = chapter.study_path + below
        assert await studio.teacher.error_code(422, method, path, body, match="*") == "VALIDATION_ERROR"
    for method, below, body in [
        ("POST", "/rollback", {"version": 9}),
        ("GET", "/versions/9", None),
        ("GET", "/versions/9/diff", None),
        ("GET", "/versions/1/diff?against=9", None),
    ]:
        path = chapter.study_path + below
        assert await studio.teacher.error_code(404, method, path, body, match="*") == "NOT_FOUND_IN_NODE"


async def test_number_of_versions_of_a_study_is_limited(
    studio: Studio, studies: StudyFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.workspace.studies._versions._VERSIONS_MAX", 3)
    chapter = await studies.chapter()
    await kept(studio, chapter)
    await kept(studio, chapter)
    back = f"{chapter.study_path}/rollback"
    await say(studio, chapter, "worse")
    before = await studio.stream(chapter.study["id"])
    # The current state would be stored first, as the third version; there is no room for a fourth.
    assert await studio.teacher.error_code(409, "POST", back, {"version": 1}, match="*") == "VERSIONS_FULL"
    assert await studio.stream(chapter.study["id"]) == before
    await kept(studio, chapter)
    path = f"{chapter.study_path}/versions"
    assert await studio.teacher.error_code(409, "POST", path, {"label": ""}) == "VERSIONS_FULL"
    assert len((await studio.teacher.call("GET", path))["items"]) == 3


async def test_study_that_is_too_large_is_not_stored_in_part(
    studio: Studio, studies: StudyFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    chapter = await studies.chapter()
    await kept(studio, chapter)
    await say(studio, chapter, "x" * 9_000)
    before = await studio.stream(chapter.study["id"])
    monkeypatch.setattr("backend.workspace.studies._versions._VERSION_BYTES_MAX", 8_000)
    for path, body in (("versions", {"label": ""}), ("rollback", {"version": 1})):
        answer = await studio.teacher.send("POST", f"{chapter.study_path}/{path}", body, match="*")
        assert (answer.status_code, answer.json()["error_code"]) == (409, "VERSION_TOO_LARGE")
    assert await studio.stream(chapter.study["id"]) == before
    monkeypatch.setattr("backend.workspace.studies._versions._VERSION_BYTES_MAX", 10_000)
    assert (await kept(studio, chapter))["number"] == 2
