"""Responses to refused requests have a code and say what is wrong."""

import pytest

from tests.fixtures.pgn import IMPORT_PATH, import_pgn, send_pgn
from tests.fixtures.studio import Studio


async def test_error_lists_the_roles_that_can_be_granted(studio: Studio) -> None:
    root = await studio.teacher.node("workspace")
    body = {"user_id": "pupil", "role": "owner"}
    answer = await studio.teacher.send("POST", f"/share/{root['id']}/users", body)
    assert answer.status_code == 422
    [detail] = answer.json()["details"]
    assert detail["message"] == "Input should be 'viewer', 'commenter', 'editor' or 'admin'"
    link = await studio.teacher.send("POST", f"/share/{root['id']}/links", {"role": "admin"})
    assert "<" not in link.text


async def test_link_without_a_password_is_opened_without_a_body(studio: Studio) -> None:
    root = await studio.teacher.node("workspace")
    link = await studio.teacher.link(root, "viewer")
    path = f"/links/{link['token']}/open"
    for options in {}, {"content": b"", "headers": {"Content-Type": "application/json"}}, {"json": {}}:
        answer = await studio.anonymous.send("POST", path, **options)
        assert (answer.status_code, answer.json()["node_id"]) == (200, root["id"])
    locked = await studio.teacher.link(root, "viewer", password="secret word")
    path = f"/links/{locked['token']}/open"
    assert await studio.anonymous.error_code(403, "POST", path) == "LINK_PASSWORD_WRONG"
    assert await studio.anonymous.error_code(415, "POST", path, content=b"x") == "UNSUPPORTED_MEDIA_TYPE"


@pytest.mark.parametrize("character", ["\n", "\t", "\x1b", "\x7f", "\x85", "\u2028", "\u202e", "\u2066"])
async def test_title_of_more_than_one_line_is_refused(studio: Studio, character: str) -> None:
    root = await studio.teacher.node("workspace")
    title = f"a{character}b"
    thread = {"target_id": root["id"], "kind": "note", "body": "x"}
    for method, path, body, match in (
        ("POST", "/nodes", {"kind": "folder", "title": title}, None),
        ("POST", "/studies", {"title": title}, None),
        ("PATCH", f"/nodes/{root['id']}", {"title": title}, 1),
        ("POST", "/discussions", {**thread, "title": title}, None),
        ("POST", IMPORT_PATH, {"pgn": "1. e4 *", "title": title}, None),
    ):
        answer = await studio.teacher.send(method, path, body, match=match)
        assert (answer.status_code, answer.json()["error_code"]) == (422, "VALIDATION_ERROR"), path
        [detail] = [one for one in answer.json()["details"] if one["field"] == "body.title"]
        assert f"U+{ord(character):04X}" in detail["message"]
    answer = await studio.teacher.send("POST", "/nodes", {"kind": "folder", "title": " שלום 👍\u200d \n"})
    assert answer.json()["title"] == "שלום 👍\u200d"


async def test_title_from_a_file_is_one_line(studio: Studio) -> None:
    report = await import_pgn(studio.teacher, '[White "A\u202eB"]\n[Black "C\tD"]\n\n1. e4 *')
    study = await studio.teacher.call("GET", f"/studies/{report['studies'][0]['id']}")
    [chapter] = study["chapters"]
    assert (chapter["title"], chapter["headers"]["White"]) == ("A B – C D", "A\u202eB")
    answer = await studio.teacher.send(
        "POST", IMPORT_PATH, files={"file": ("a\u202eb.pgn", b"1. e4 *", "application/x-chess-pgn")}
    )
    assert answer.json()["studies"][0]["title"] == "a b"
    assert (await send_pgn(studio.teacher, "1. e4 *", f"{IMPORT_PATH}?title=a%0Ab")).status_code == 422


@pytest.mark.parametrize(
    ("header", "status", "code"),
    [
        ("1", 400, "IF_MATCH_INVALID"),
        ("", 400, "IF_MATCH_INVALID"),
        ("'1'", 400, "IF_MATCH_INVALID"),
        ('"1" "2"', 400, "IF_MATCH_INVALID"),
        ('*, "1"', 400, "IF_MATCH_INVALID"),
        ('w/"1"', 400, "IF_MATCH_INVALID"),
        ('W/"1"', 412, "IF_MATCH_WEAK"),
        ('W/"1", W/"2"', 412, "IF_MATCH_WEAK"),
        ('"2"', 412, "VERSION_STALE"),
        ('"other", W/"1"', 412, "VERSION_STALE"),
    ],
)
async def test_error_names_why_if_match_is_invalid(
    studio: Studio, header: str, status: int, code: str
) -> None:
    root = await studio.teacher.node("workspace")
    answer = await studio.teacher.send("PATCH", f"/nodes/{root['id']}", {"title": "x"}, match=header)
    assert (answer.status_code, answer.json()["error_code"]) == (status, code)


@pytest.mark.parametrize("header", ['"1"', ' "1" ', '"7" , "1"', 'W/"1", "1"', ',"1",', "*"])
async def test_if_match_with_the_current_tag_among_others_matches(studio: Studio, header: str) -> None:
    root = await studio.teacher.node("workspace")
    changed = await studio.teacher.call("PATCH", f"/nodes/{root['id']}", {"title": "x"}, match=header)
    assert changed["version"] == 2


async def test_several_if_match_headers_are_one_list(studio: Studio) -> None:
    root = await studio.teacher.node("workspace")
    path = f"/api/v1/nodes/{root['id']}"
    for lines, status in ((['"1"', "*"], 400), (["*", '"1"'], 400), (['"7"', '"1"'], 200)):
        headers = [*studio.teacher.headers().items(), *(("If-Match", one) for one in lines)]
        answer = await studio.http.patch(path, json={"title": "x"}, headers=headers)
        assert answer.status_code == status, lines


async def test_several_authorization_headers_are_refused(studio: Studio) -> None:
    root = await studio.teacher.node("workspace")
    both = [*studio.teacher.headers().items(), *studio.stranger.headers().items()]
    for path in (f"/api/v1/nodes/{root['id']}", "/api/v1/nodes", f"/api/v1/nodes/{root['id']}/events"):
        answer = await studio.http.get(path, headers=both)
        assert (answer.status_code, answer.json()["error_code"]) == (401, "TOKEN_INVALID"), path
