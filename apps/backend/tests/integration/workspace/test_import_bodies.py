"""The accepted bodies of an import: bytes in several encodings, a form, JSON; and refused ones."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx2 as httpx
from backend.workspace.pgn._body import PGN_BYTES_MAX
from backend.workspace.pgn._uploads import UPLOADS_MAX, UPLOADS_PER_USER_MAX

from tests.fixtures.pgn import (
    IMPORT_PATH,
    NO_ROWS,
    PGN,
    game,
    games,
    import_pgn,
    import_refused,
    row_counts,
    send_pgn,
)
from tests.fixtures.studio import Studio

NAMED = '[White "Müller"]\n[Black "Kovač"]\n[Result "*"]\n\n1. e4 *\n'


async def title_of(studio: Studio, report: Any) -> str:
    """Return the title of the only chapter."""
    detail = await studio.teacher.call("GET", f"/studies/{report['studies'][0]['id']}")
    [chapter] = detail["chapters"]
    return chapter["title"]


#: The same game in several encodings, with and without a byte order mark.
ENCODED = {
    "utf-8": NAMED.encode(),
    "mark and CRLF": b"\xef\xbb\xbf" + NAMED.replace("\n", "\r\n").encode(),
    "utf-16": NAMED.encode("utf-16"),
    "latin-1": NAMED.replace("č", "c").encode("latin-1"),
}


async def test_bytes_are_passed_to_the_parser_unchanged(studio: Studio) -> None:
    for encoding, data in ENCODED.items():
        title = "Müller – Kovac" if encoding == "latin-1" else "Müller – Kovač"
        report = await import_pgn(studio.teacher, data)
        assert await title_of(studio, report) == title, encoding
        report = await studio.teacher.call("POST", IMPORT_PATH, files={"file": ("a.pgn", data)})
        assert await title_of(studio, report) == title, encoding


async def test_media_types_of_pgn_are_accepted(studio: Studio) -> None:
    for kind in ("application/vnd.chess-pgn", "Text/Plain; charset=iso-8859-1"):
        report = await import_pgn(studio.teacher, game(1), content_type=kind)
        assert report["studies"][0]["title"] == "Imported games"


async def test_json_body_has_the_file_title_and_parent(studio: Studio) -> None:
    root = await studio.teacher.node("workspace", "Club")
    body = {"pgn": NAMED, "title": " Spring ", "parent_id": root["id"]}
    report = await studio.teacher.call("POST", IMPORT_PATH, body)
    assert report["studies"][0]["title"] == "Spring"
    assert await title_of(studio, report) == "Müller – Kovač"
    into = f"/studies/{report['studies'][0]['id']}/import-pgn"
    assert (await studio.teacher.call("POST", into, {"pgn": game(2)}))["chapters"] == 1
    assert await studio.teacher.error_code(422, "POST", into, body) == "VALIDATION_ERROR"


async def test_name_of_the_file_is_the_title_if_the_form_has_none(studio: Studio) -> None:
    named = {"C:\\games\\Club 2024.PGN": "Club 2024", "tmp/März.pgn": "März", ".pgn": "Imported games"}
    for name, title in named.items():
        report = await studio.teacher.call("POST", IMPORT_PATH, files={"file": (name, game(1))})
        assert report["studies"][0]["title"] == title


async def test_form_has_title_and_parent_beside_the_file(studio: Studio) -> None:
    root = await studio.teacher.node("workspace", "Club")
    fields = {"title": "Spring", "parent_id": root["id"]}
    report = await studio.teacher.call("POST", IMPORT_PATH, data=fields, files={"pgn": ("a.pgn", game(1))})
    study = await studio.teacher.call("GET", f"/studies/{report['studies'][0]['id']}")
    assert (study["title"], study["parent_id"]) == ("Spring", root["id"])


async def test_import_with_unknown_parameters_is_refused(studio: Studio) -> None:
    root = await studio.teacher.node("workspace", "Club")
    for query, wrong in (
        (f"stric=true&parent={root['id']}", ["query.stric", "query.parent"]),
        ("strict=true&strict=false", ["query.strict"]),
    ):
        refusal = await import_refused(studio.teacher, 422, game(1), f"{IMPORT_PATH}?{query}")
        assert [one["field"] for one in refusal["details"]] == wrong
    assert await row_counts(studio) == NO_ROWS


async def test_title_and_parent_in_the_query_apply_to_every_body(studio: Studio) -> None:
    root = await studio.teacher.node("workspace", "Club")
    for title, options in (
        ("JSON", {"body": {"pgn": game(1)}}),
        ("form", {"files": {"file": ("a.pgn", game(1))}}),
        ("bytes", {"content": game(1), "headers": {"Content-Type": PGN}}),
    ):
        path = f"{IMPORT_PATH}?title={title}&parent_id={root['id']}"
        report = await studio.teacher.call("POST", path, **options)
        study = await studio.teacher.call("GET", f"/studies/{report['studies'][0]['id']}")
        assert (study["title"], study["parent_id"]) == (title, root["id"])


async def test_field_in_the_query_and_in_the_body_is_refused(studio: Studio) -> None:
    for options in (
        {"body": {"pgn": game(1), "title": "Autumn"}},
        {"data": {"title": "Autumn"}, "files": {"file": ("a.pgn", game(1))}},
    ):
        answer = await studio.teacher.send("POST", f"{IMPORT_PATH}?title=Spring", **options)
        assert (answer.status_code, answer.json()["details"][0]["field"]) == (422, "query.title")
    assert await row_counts(studio) == NO_ROWS


async def test_error_names_the_field_of_the_wrong_type(studio: Studio) -> None:
    for field, value in (("title", "x" * 201), ("title", "%00"), ("parent_id", "here")):
        refusal = await import_refused(studio.teacher, 422, game(1), f"{IMPORT_PATH}?{field}={value}")
        assert [one["field"] for one in refusal["details"]] == [f"query.{field}"]
    fields = {"title": "x" * 201, "colour": "red"}
    answer = await studio.teacher.send("POST", IMPORT_PATH, data=fields, files={"file": ("a.pgn", game(1))})
    assert answer.status_code == 422
    assert {one["field"] for one in answer.json()["details"]} == {"body.title", "body.colour"}
    assert await studio.teacher.error_code(422, "POST", IMPORT_PATH, {"title": "x"}) == "VALIDATION_ERROR"


async def test_body_with_another_media_type_or_encoding_is_refused(studio: Studio) -> None:
    for kind in ("application/pdf", "", "multipart/mixed; boundary=x"):
        refusal = await import_refused(studio.teacher, 415, game(1), content_type=kind)
        assert refusal["error_code"] == "UNSUPPORTED_MEDIA_TYPE"
        assert "application/x-chess-pgn" in refusal["message"]
    await import_refused(studio.teacher, 415, b"\x1f\x8b", headers={"Content-Encoding": "gzip"})


async def test_malformed_form_is_refused(studio: Studio) -> None:
    for body in (b'--x\r\nContent-Disposition: form-data; name="f"; filename="a.pgn"\r\n\r\n1. e4 e5', b""):
        refusal = await import_refused(
            studio.teacher, 400, body, content_type="multipart/form-data; boundary=x"
        )
        assert refusal["error_code"] == "FORM_MALFORMED"
    assert await row_counts(studio) == NO_ROWS


async def test_file_has_a_higher_limit_than_other_bodies(studio: Studio) -> None:
    remark = "x" * 9_000
    moves = " ".join(f"{move} {{{remark}}}" for move in ("Nf3", "Nf6", "Ng1", "Ng8") * 10) + " *"
    file = "\n".join(game(number, moves) for number in range(4))
    assert len(file) > 1024 * 1024
    assert (await import_pgn(studio.teacher, file))["chapters"] == 4
    assert (await studio.teacher.call("POST", IMPORT_PATH, files={"file": ("a.pgn", file)}))["chapters"] == 4
    assert (await studio.teacher.call("POST", IMPORT_PATH, {"pgn": file}))["chapters"] == 4
    for kind in ("text/plain", "application/json", "multipart/form-data; boundary=x"):
        refusal = await import_refused(studio.teacher, 413, b" " * (PGN_BYTES_MAX + 1), content_type=kind)
        assert refusal["error_code"] == "BODY_TOO_LARGE"


async def test_body_without_length_is_cut_off_at_the_limit(studio: Studio) -> None:
    taken = 0

    async def endless() -> Any:
        nonlocal taken
        while taken < 2 * PGN_BYTES_MAX:
            taken += 1024 * 1024
            yield games(1).encode() + b" " * 1024 * 1024

    answer = await studio.teacher.send(
        "POST", IMPORT_PATH, content=endless(), headers={"Content-Type": "text/plain"}
    )
    assert answer.status_code == 413
    assert taken < PGN_BYTES_MAX + 4 * 1024 * 1024


async def test_response_is_stored_for_a_key_with_every_kind_of_body(studio: Studio) -> None:
    form = {"files": {"file": ("a.pgn", game(1))}}
    # The boundary of the form is part of the compared request, so it must be the same.
    kind = {"Idempotency-Key": "once", "Content-Type": "multipart/form-data; boundary=x"}
    first = await studio.teacher.send("POST", IMPORT_PATH, headers=dict(kind), **form)
    again = await studio.teacher.send("POST", IMPORT_PATH, headers=dict(kind), **form)
    assert (first.status_code, again.content) == (201, first.content)
    assert again.headers["idempotent-replayed"] == "true"
    assert (await send_pgn(studio.teacher, game(1), headers={"Idempotency-Key": "once"})).status_code == 422


async def test_limit_of_a_file_is_the_same_with_a_key(studio: Studio) -> None:
    study = await studio.teacher.call("POST", "/studies", {"title": "Endgames"})
    into, large = f"/studies/{study['id']}/import-pgn", game(1) + "\n" * (2 * 1024 * 1024)
    for path in (IMPORT_PATH, into):
        first, again = [
            await send_pgn(studio.teacher, large, path, headers={"Idempotency-Key": path}) for _ in range(2)
        ]
        assert (first.status_code, again.status_code) == (201, 201), first.text
        assert again.content == first.content


async def test_number_of_large_files_received_at_a_time_is_limited(studio: Studio) -> None:
    study = await studio.teacher.call("POST", "/studies", {"title": "Endgames"})
    into, rest = f"/studies/{study['id']}/import-pgn", asyncio.Event()
    taken = asyncio.Queue[None]()

    async def unfinished() -> AsyncIterator[bytes]:
        taken.put_nowait(None)
        await rest.wait()
        yield game(1).encode()

    async def send(name: str) -> httpx.Response:
        headers = {"Content-Type": PGN}
        return await studio.person(name).send("POST", IMPORT_PATH, content=unfinished(), headers=headers)

    async def refused_now(name: str) -> None:
        large = b" " * (1024 * 1024 + 1)
        headers = {"Content-Type": PGN}
        answer = await studio.person(name).send("POST", IMPORT_PATH, content=large, headers=headers)
        assert (answer.status_code, answer.json()["error_code"]) == (429, "TOO_MANY_UPLOADS"), name
        assert int(answer.headers["retry-after"]) > 0

    async with asyncio.TaskGroup() as group:
        sending: list[asyncio.Task[httpx.Response]] = []
        for name in ("one", "one", "two", "three", "four", "five"):
            sending.append(group.create_task(send(name)))
            await taken.get()
            if len(sending) == UPLOADS_PER_USER_MAX:
                await refused_now("one")
            if len(sending) >= UPLOADS_MAX // 2:
                # One file of each user, so that three users never use all places.
                await refused_now("two")
        await refused_now("another")
        # A small file uses no place.
        await import_pgn(studio.teacher, game(2), into)
        rest.set()
    assert [one.result().status_code for one in sending] == [201] * UPLOADS_MAX
    await import_pgn(studio.person("one"), game(1) + "\n" * (2 * 1024 * 1024))
