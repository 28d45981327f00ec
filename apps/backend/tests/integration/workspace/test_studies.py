"""Studies: creating, reading and renaming them; routes of studies find no other kind of node."""

import sys
from uuid import uuid4

import pytest

from tests.fixtures.studies import StudyFactory
from tests.fixtures.studio import Studio


async def test_study_is_created_with_its_event_and_read_with_its_chapters(
    studio: Studio, studies: StudyFactory
) -> None:
    root = await studio.teacher.node("workspace", "Club")
    body = {"title": " Endgames ", "parent_id": root["id"], "description": "rooks", "layout": {"x": 1.0}}
    made = await studio.teacher.send("POST", "/studies", body)
    study = made.json()
    assert made.headers["location"] == f"/api/v1/studies/{study['id']}"
    [event] = await studio.stream(study["id"])
    assert (event.type, event.payload["title"]) == ("study.created", "Endgames")
    second = await studies.chapter('[White "Anna"]\n\n1. e4', study=study, position=1)
    first = await studies.chapter("1. d4", study=study)
    answer = await studio.teacher.send("GET", first.study_path)
    detail = answer.json()
    assert answer.headers["etag"] == '"3"'
    assert (detail["role"], [one["title"] for one in detail["path"]]) == ("owner", ["Club"])
    assert [one["id"] for one in detail["chapters"]] == [str(first.id), str(second.id)]
    assert detail["chapters"][1]["title"] == "Anna – ?"
    assert detail["chapters"][1]["headers"]["White"] == "Anna"
    assert "moves" not in detail["chapters"][0]


async def test_study_follows_the_rules_of_the_tree(studio: Studio, studies: StudyFactory) -> None:
    root = await studio.teacher.node("workspace")
    study = await studies.study(title="Endgames", parent_id=root["id"])
    taken = {"title": "Endgames", "parent_id": root["id"]}
    assert await studio.teacher.error_code(409, "POST", "/studies", taken) == "TITLE_TAKEN"
    below = {"title": "x", "parent_id": study["id"]}
    assert await studio.teacher.error_code(422, "POST", "/studies", below) == "PARENT_INVALID"
    nowhere = {"title": "x", "parent_id": str(uuid4())}
    assert await studio.teacher.error_code(404, "POST", "/studies", nowhere) == "NODE_NOT_FOUND"
    here = {"title": "x", "parent_id": root["id"]}
    assert await studio.stranger.error_code(404, "POST", "/studies", here) == "NODE_NOT_FOUND"
    assert await studio.anonymous.error_code(401, "POST", "/studies", here) == "TOKEN_MISSING"


async def test_change_of_title_or_description_requires_the_version(
    studio: Studio, studies: StudyFactory
) -> None:
    study = await studies.study(title="before")
    path = f"/studies/{study['id']}"
    assert await studio.teacher.error_code(428, "PATCH", path, {"title": "after"}) == "IF_MATCH_MISSING"
    assert await studio.teacher.error_code(412, "PATCH", path, {"title": "x"}, match=2) == "VERSION_STALE"
    changed = await studio.teacher.call("PATCH", path, {"title": "after", "description": "d"}, match=1)
    assert (changed["title"], changed["description"], changed["version"]) == ("after", "d", 2)
    same = await studio.teacher.call("PATCH", path, {}, match=2)
    assert same["version"] == 2
    assert [event.type for event in await studio.stream(study["id"])] == ["study.created", "node.updated"]


REFUSED = [
    ("POST", {}),
    ("POST", {"title": ""}),
    ("POST", {"title": "t" * 201}),
    ("POST", {"title": "t", "parent_id": "root"}),
    ("POST", {"title": "t", "description": "d" * 10_001}),
    ("POST", {"title": "t", "layout": {"x": "left"}}),
    ("POST", {"title": "t", "visibility": "secret"}),
    ("POST", {"title": "t", "position": -1}),
    ("POST", {"title": "t", "kind": "folder"}),
    ("PATCH", {"title": ""}),
    ("PATCH", {"description": 1}),
    ("PATCH", {"visibility": "public"}),
    ("PATCH", []),
]


@pytest.mark.guarantee("G82")
async def test_invalid_study_is_refused(studio: Studio, studies: StudyFactory) -> None:
    there = f"/studies/{(await studies.study())['id']}"
    for method, body in REFUSED:
        path = "/studies" if method == "POST" else there
        assert await studio.teacher.error_code(422, method, path, body, match=1) == "VALIDATION_ERROR"


async def test_folder_is_not_found_under_studies(studio: Studio, studies: StudyFactory) -> None:
    folder = await studio.teacher.node("folder", visibility="public")
    for person in (studio.teacher, studio.stranger, studio.anonymous):
        assert await person.error_code(404, "GET", f"/studies/{folder['id']}") == "NODE_NOT_FOUND"
    # A user that may only read the folder gets 404 too: a 403 would disclose that the id exists.
    for method, below in [("PATCH", ""), ("POST", "/versions"), ("POST", "/rollback")]:
        path = f"/studies/{folder['id']}{below}"
        assert await studio.stranger.error_code(404, method, path, {}, match=1) == "NODE_NOT_FOUND"
    assert await studio.teacher.error_code(404, "GET", "/studies/none") == "NODE_NOT_FOUND"


@pytest.mark.guarantee("G81")
async def test_study_of_another_user_gets_the_response_of_a_missing_one(
    studio: Studio, studies: StudyFactory
) -> None:
    chapter = await studies.chapter()
    there = chapter.path.removeprefix(chapter.study_path)
    writes = [
        ("PATCH", ""),
        ("POST", f"{there}/moves"),
        ("DELETE", f"{there}/moves/e2e4"),
        ("PUT", f"{there}/moves/e2e4/annotation"),
        ("POST", f"{there}/variations/e2e4/promote"),
        ("POST", f"{there}/variations/e2e4/demote"),
        ("POST", "/versions"),
        ("POST", "/rollback"),
    ]
    reads = [("GET", one) for one in ("", there, "/export", "/versions", "/versions/1", "/versions/1/diff")]
    for method, below in writes + reads:
        theirs = await studio.stranger.send(method, chapter.study_path + below, match=1)
        missing = await studio.stranger.send(method, f"/studies/{uuid4()}{below}", match=1)
        assert theirs.status_code == missing.status_code == 404, below
        assert theirs.json()["message"] == missing.json()["message"]
        assert await studio.anonymous.error_code(401, method, chapter.study_path + below) == "TOKEN_MISSING"
    await studio.teacher.call("PATCH", f"/nodes/{chapter.study['id']}", {"visibility": "public"}, match=2)
    for method, below in writes:
        assert await studio.stranger.error_code(403, method, chapter.study_path + below) == "ROLE_MISSING"
        assert await studio.anonymous.error_code(401, method, chapter.study_path + below) == "TOKEN_MISSING"


async def test_studies_without_the_package_chess_are_501(
    studio: Studio, studies: StudyFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    chapter = await studies.chapter()
    monkeypatch.setitem(sys.modules, "chess", None)
    for method, path in [
        ("POST", "/studies"),
        ("GET", chapter.study_path),
        ("GET", chapter.path),
        ("POST", f"{chapter.path}/moves"),
        ("GET", f"{chapter.study_path}/export"),
        ("POST", f"{chapter.study_path}/versions"),
    ]:
        assert await studio.teacher.error_code(501, method, path, {}) == "CHESS_NOT_INSTALLED"
    await studio.teacher.call("GET", f"/nodes/{chapter.study['id']}")
