"""Imports of up to 200 games: rows, events and response commit in one transaction, or none of them."""

import asyncio
from typing import Any
from uuid import UUID

import pytest
from backend.workspace.pgn._parsed_file import GAMES_MAX

from tests.fixtures.gates import Gate, closed_gate
from tests.fixtures.pgn import (
    BROKEN_GAME,
    IMPORT_PATH,
    NO_ROWS,
    fetch_rows,
    game,
    games,
    import_pgn,
    import_refused,
    row_counts,
    send_pgn,
)
from tests.fixtures.studio import Studio

CHAPTERS_SQL = "SELECT * FROM workspace_chapters WHERE node_id = $1::uuid ORDER BY position"
COMMAND = "SELECT payload::text, status::text FROM command_inbox WHERE command_type = 'ImportPgn'"
#: The correlation ids of the events of imports, with the number of events.
CHAINS = "SELECT DISTINCT correlation_id FROM domain_events WHERE event_type LIKE 'study.%'"


async def test_file_becomes_a_study_with_a_chapter_for_each_game(studio: Studio) -> None:
    root = await studio.teacher.node("workspace", "Club")
    path = f"{IMPORT_PATH}?title=Spring&parent_id={root['id']}"
    answer = await send_pgn(studio.teacher, games(2), path)
    report = answer.json()
    [study] = report["studies"]
    assert answer.headers["location"] == f"/api/v1/studies/{study['id']}"
    assert (study["title"], study["chapters"], report["chapters"]) == ("Spring", 2, 2)
    assert (report["folder_id"], report["skipped_count"], report["skipped"]) == (None, 0, [])
    detail = await studio.teacher.call("GET", f"/studies/{study['id']}")
    assert [one["title"] for one in detail["chapters"]] == ["W1 – B", "W2 – B"]
    assert (detail["parent_id"], detail["version"]) == (root["id"], 3)
    first, second = await fetch_rows(studio, CHAPTERS_SQL, study["id"])
    assert (first["position"], second["position"], first["version"]) == (0, 1, 1)
    moves = await studio.teacher.call("GET", f"/studies/{study['id']}/chapters/{first['id']}")
    assert [one["uci"] for one in moves["moves"]] == ["e2e4", "e7e5", "g1f3"]


async def test_import_is_one_command_and_one_chain_of_events(studio: Studio) -> None:
    report = await import_pgn(studio.teacher, games(2))
    study_id = report["studies"][0]["id"]
    created, told, *chapters = await studio.stream(study_id)
    assert (created.type, told.type) == ("study.created", "study.pgn_imported")
    assert [one.type for one in chapters] == ["study.chapter.created"] * 2
    assert (created.causation_id, told.causation_id) == (None, created.event_id)
    assert {one.causation_id for one in chapters} == {told.event_id}
    assert len({one.correlation_id for one in (created, told, *chapters)}) == 1
    assert dict(told.payload) == {"chapters": 2, "games": 2, "skipped_count": 0, "skipped": []}
    [outbox] = await fetch_rows(
        studio, "SELECT payload FROM event_outbox WHERE payload ->> 'event_type' = 'study.pgn_imported'"
    )
    told = {name: outbox["payload"][name] for name in ("actor_id", "target_id", "target_type", "version")}
    assert told == {"actor_id": "teacher", "target_id": study_id, "target_type": "STUDY", "version": 2}


async def test_inbox_has_a_digest_of_the_file_and_none_of_its_content(studio: Studio) -> None:
    await import_pgn(studio.teacher, games(1))
    [command] = await fetch_rows(studio, COMMAND)
    assert command["status"] == "COMPLETED"
    assert f'"size_bytes": {len(games(1))}' in command["payload"]
    assert "W1" not in command["payload"]
    assert "Club" not in command["payload"]


async def test_more_than_64_games_become_a_folder_of_studies(studio: Studio) -> None:
    root = await studio.teacher.node("workspace", "Club")
    path = f"{IMPORT_PATH}?title=Spring&parent_id={root['id']}"
    answer = await send_pgn(studio.teacher, games(130), path)
    report = answer.json()
    assert answer.headers["location"] == f"/api/v1/nodes/{report['folder_id']}"
    assert [(one["title"], one["chapters"]) for one in report["studies"]] == [
        ("Spring 1–64", 64),
        ("Spring 65–128", 64),
        ("Spring 129–130", 2),
    ]
    tree = await studio.teacher.call("GET", f"/nodes/tree?root_id={root['id']}")
    shown = [(one["kind"], one["title"], one["depth"]) for one in tree["items"]]
    assert shown[1:] == [
        ("folder", "Spring", 1),
        ("study", "Spring 1–64", 2),
        ("study", "Spring 65–128", 2),
        ("study", "Spring 129–130", 2),
    ]


async def test_chain_of_a_folder_import_begins_with_the_folder(studio: Studio) -> None:
    report = await import_pgn(studio.teacher, games(65))
    [folder] = await studio.stream(report["folder_id"])
    assert (folder.type, folder.causation_id) == ("node.created", None)
    for study in report["studies"]:
        created, told, *chapters = await studio.stream(study["id"])
        assert (created.type, created.causation_id) == ("study.created", folder.event_id)
        assert (told.type, told.causation_id) == ("study.pgn_imported", created.event_id)
        assert {one.causation_id for one in chapters} == {told.event_id}
        assert [one.version for one in (created, told, *chapters)] == list(range(1, 3 + study["chapters"]))
    assert [one["correlation_id"] for one in await fetch_rows(studio, CHAINS)] == [folder.correlation_id]


async def test_long_title_is_cut_so_that_study_numbers_fit(studio: Studio) -> None:
    report = await import_pgn(studio.teacher, games(65), f"{IMPORT_PATH}?title={'x' * 200}")
    assert [len(one["title"]) for one in report["studies"]] == [200, 200]
    assert report["studies"][1]["title"].endswith("x 65–65")


async def test_games_are_added_to_a_study_after_its_chapters(studio: Studio) -> None:
    study = await studio.teacher.node("study", "Club")
    path = f"/studies/{study['id']}/import-pgn"
    await import_pgn(studio.teacher, games(2), path)
    answer = await send_pgn(studio.teacher, game(3), path)
    assert (answer.status_code, answer.headers["etag"]) == (201, '"4"')
    assert answer.json()["studies"] == [{"id": study["id"], "title": "Club", "chapters": 1}]
    chapters = await fetch_rows(studio, CHAPTERS_SQL, study["id"])
    assert [(one["position"], one["title"]) for one in chapters] == [
        (0, "W1 – B"),
        (1, "W2 – B"),
        (2, "W3 – B"),
    ]
    told = [one for one in await studio.stream(study["id"]) if one.type == "study.pgn_imported"]
    assert [one.causation_id for one in told] == [None, None]
    assert told[0].correlation_id != told[1].correlation_id


@pytest.mark.parametrize("before", [0, 60])
async def test_file_is_refused_if_the_study_has_not_enough_room(studio: Studio, before: int) -> None:
    study = await studio.teacher.node("study", "Club")
    path = f"/studies/{study['id']}/import-pgn"
    if before:
        await import_pgn(studio.teacher, games(before), path)
    there = await row_counts(studio)
    refusal = await import_refused(studio.teacher, 422, games(65 - before), path)
    assert refusal["error_code"] == "STUDY_FULL"
    assert "into a folder instead" in refusal["message"]
    assert await row_counts(studio) == there
    assert (await import_pgn(studio.teacher, games(64 - before), path))["chapters"] == 64 - before


async def test_unreadable_game_is_left_out_and_reported(studio: Studio) -> None:
    report = await import_pgn(studio.teacher, f"{game(1)}\n{BROKEN_GAME}\n{game(3)}")
    assert (report["chapters"], report["skipped_count"]) == (2, 1)
    [skipped] = report["skipped"]
    assert (skipped["game"], skipped["line"]) == (2, 12)
    assert "Ke4" in skipped["reason"]
    told = (await studio.stream(report["studies"][0]["id"]))[1]
    assert (told.payload["games"], told.payload["skipped"]) == (3, [skipped])


async def test_each_skipped_game_is_in_the_event_of_one_study(studio: Studio) -> None:
    file = "\n".join([BROKEN_GAME, games(64), BROKEN_GAME, games(2), BROKEN_GAME])
    report = await import_pgn(studio.teacher, file)
    assert [one["game"] for one in report["skipped"]] == [1, 66, 69]
    told = [(await studio.stream(one["id"]))[1].payload for one in report["studies"]]
    assert [[one["game"] for one in payload["skipped"]] for payload in told] == [[1, 66], [69]]


async def test_report_lists_100_skipped_games_and_counts_all(studio: Studio) -> None:
    report = await import_pgn(studio.teacher, game(1) + "\n" + "\n".join([BROKEN_GAME] * 101))
    assert (report["skipped_count"], len(report["skipped"])) == (101, 100)


async def test_strict_import_refuses_the_file_with_game_and_line(studio: Studio) -> None:
    refusal = await import_refused(
        studio.teacher, 422, f"{game(1)}\n{BROKEN_GAME}\n{game(3)}", f"{IMPORT_PATH}?strict=true"
    )
    assert (refusal["error_code"], refusal["game"], refusal["line"]) == ("PGN_INVALID", 2, 12)
    assert "Ke4" in refusal["reason"]
    assert await row_counts(studio) == NO_ROWS
    study = await studio.teacher.node("study", "Club")
    path = f"/studies/{study['id']}/import-pgn?strict=true"
    assert (await import_refused(studio.teacher, 422, BROKEN_GAME, path))["error_code"] == "PGN_INVALID"
    assert await import_refused(studio.teacher, 422, game(1), f"{IMPORT_PATH}?strict=perhaps")
    assert await row_counts(studio) == {**NO_ROWS, "events": 1, "outbox": 1}
    assert await fetch_rows(studio, COMMAND) == []


#: Files without a valid game, and the number of the game that the error names.
NO_GAMES = {
    b"": None,
    b"\n\n  \n": None,
    b"Dear diary, today I played badly.": None,
    bytes(range(256)) * 40: None,
    b"PK\x03\x04\x14\x00\x08\x00": None,
    BROKEN_GAME.encode(): 1,
}


async def test_file_without_a_game_is_refused(studio: Studio) -> None:
    for file, numbered in NO_GAMES.items():
        refusal = await import_refused(studio.teacher, 422, file)
        assert (refusal["error_code"], refusal["game"]) == ("PGN_INVALID", numbered), file[:40]
        assert refusal["line"] >= 1
    assert await row_counts(studio) == NO_ROWS


async def test_game_too_large_for_an_event_is_left_out(studio: Studio) -> None:
    remark = "x" * 9_000
    plies = [f"{move} {{{remark}}}" for _ in range(30) for move in ("Nf3", "Nf6", "Ng1", "Ng8")]
    report = await import_pgn(studio.teacher, f"{game(1)}\n{game(2, ' '.join(plies) + ' *')}")
    assert (report["chapters"], report["skipped_count"]) == (1, 1)
    assert (report["skipped"][0]["game"], "split" in report["skipped"][0]["reason"]) == (2, True)


async def test_file_with_too_many_games_is_refused_before_parsing(studio: Studio) -> None:
    file = '[Event "x"]\n\n1. e4 *\n\n' * (GAMES_MAX + 1)
    refusal = await import_refused(studio.teacher, 422, file)
    assert refusal["error_code"] == "PGN_TOO_MANY_GAMES"


async def test_worker_imports_files_of_more_than_200_games(studio: Studio) -> None:
    assert (await import_pgn(studio.teacher, games(200)))["chapters"] == 200
    assert (await send_pgn(studio.teacher, games(201))).status_code == 202
    # Without tag pairs the number of games is only estimated.
    bare = "\n\n".join(["1. e4 e5"] * 201)
    assert (await send_pgn(studio.teacher, bare)).status_code == 202


async def test_failed_import_writes_nothing(studio: Studio) -> None:
    root = await studio.teacher.node("workspace", "Club")
    study = await studio.teacher.node("study", "Club", root)
    answer = await send_pgn(studio.teacher, games(2), f"{IMPORT_PATH}?title=Club&parent_id={root['id']}")
    assert (answer.status_code, answer.json()["error_code"]) == (409, "TITLE_TAKEN")
    assert answer.json()["blocking_id"] == study["id"]
    into = f"{IMPORT_PATH}?parent_id={study['id']}"
    for file in (game(1), games(65)):
        assert (await import_refused(studio.teacher, 422, file, into))["error_code"] == "PARENT_INVALID"
    assert (await row_counts(studio)) == {**NO_ROWS, "events": 1, "outbox": 1}
    assert await fetch_rows(studio, COMMAND) == []


async def test_import_requires_the_role_editor(studio: Studio) -> None:
    root = await studio.teacher.node("workspace", "Club")
    study = await studio.teacher.node("study", "Club", root)
    await studio.teacher.share(root, "pupil", "commenter")
    paths = (f"{IMPORT_PATH}?parent_id={root['id']}", f"/studies/{study['id']}/import-pgn")
    for path in paths:
        # The permission is checked before the file is parsed.
        assert (await import_refused(studio.pupil, 403, "no chess", path))["error_code"] == "ROLE_MISSING"
        assert (await import_refused(studio.stranger, 404, "no chess", path))[
            "error_code"
        ] == "NODE_NOT_FOUND"
        assert (await import_refused(studio.anonymous, 401, "no chess", path))[
            "error_code"
        ] == "TOKEN_MISSING"
    assert (await import_refused(studio.anonymous, 401, "no chess"))["error_code"] == "TOKEN_MISSING"
    into_folder = f"/studies/{root['id']}/import-pgn"
    assert (await import_refused(studio.teacher, 404, game(1), into_folder))["error_code"] == "NODE_NOT_FOUND"


async def test_import_replay_returns_the_same_report_and_imports_nothing(studio: Studio) -> None:
    keyed = {"headers": {"Idempotency-Key": "once"}}
    first = await send_pgn(studio.teacher, games(2), **keyed)
    there = await row_counts(studio)
    again = await send_pgn(studio.teacher, games(2), **keyed)
    assert (again.status_code, again.content) == (201, first.content)
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["location"] == first.headers["location"]
    assert await row_counts(studio) == there
    other = await import_refused(studio.teacher, 422, games(3), **keyed)
    assert other["error_code"] == "IDEMPOTENCY_KEY_REUSED"


async def test_other_requests_are_served_while_a_file_is_parsed(studio: Studio) -> None:
    importing = asyncio.create_task(import_pgn(studio.teacher, games(200)))
    await asyncio.sleep(0)
    await studio.teacher.call("GET", "/nodes")
    assert not importing.done()
    await importing


async def test_import_of_a_folder_does_not_block_its_parent(studio: Studio, superuser: Any) -> None:
    root = await studio.teacher.node("workspace", "Club")
    async with closed_gate(superuser, Gate("INSERT", "workspace_chapters")) as gate:
        importing = asyncio.create_task(
            import_pgn(studio.teacher, games(65), f"{IMPORT_PATH}?parent_id={root['id']}")
        )
        await gate.wait_until_reached()
        await studio.teacher.node("folder", "beside", root)
    assert (await importing)["chapters"] == 65


async def test_import_is_refused_if_its_parent_is_trashed_meanwhile(studio: Studio, superuser: Any) -> None:
    root = await studio.teacher.node("workspace", "Club")
    folder = await studio.teacher.node("folder", "Club", root)
    async with closed_gate(superuser, Gate("INSERT", "workspace_chapters")) as gate:
        importing = asyncio.create_task(
            send_pgn(studio.teacher, games(65), f"{IMPORT_PATH}?parent_id={folder['id']}")
        )
        await gate.wait_until_reached()
        await studio.teacher.call("DELETE", f"/nodes/{folder['id']}", match=1)
    assert (await importing).status_code == 404
    assert await row_counts(studio) == NO_ROWS


@pytest.mark.parametrize("path", [IMPORT_PATH, "/studies/{study}/import-pgn"])
async def test_import_without_the_package_chess_is_501(
    studio: Studio, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = await studio.teacher.node("study", "Club")
    monkeypatch.setattr("backend.workspace.errors._chess.find_spec", lambda _name: None)
    refusal = await import_refused(studio.teacher, 501, game(1), path.format(study=UUID(study["id"])))
    assert refusal["error_code"] == "CHESS_NOT_INSTALLED"


async def test_purge_of_a_study_erases_the_stored_response_of_its_import(studio: Studio) -> None:
    keyed = {"headers": {"Idempotency-Key": "once"}}
    study = (await send_pgn(studio.teacher, games(1), **keyed)).json()["studies"][0]
    await studio.teacher.call("DELETE", f"/nodes/{study['id']}", match=2)
    await studio.teacher.call("DELETE", f"/nodes/{study['id']}/purge")
    assert (await send_pgn(studio.teacher, games(1), **keyed)).status_code == 410
    assert await row_counts(studio) == {**NO_ROWS, "events": 3, "outbox": 3}


@pytest.mark.parametrize("into", [False, True])
async def test_import_replay_does_not_parse_the_file(
    studio: Studio, monkeypatch: pytest.MonkeyPatch, into: bool
) -> None:
    path, headers = IMPORT_PATH, {"Idempotency-Key": "once"}
    if into:
        path = f"/studies/{(await studio.teacher.node('study'))['id']}/import-pgn"
    report = await import_pgn(studio.teacher, games(2), path, headers=headers)

    def unread(*_: Any, **__: Any) -> Any:
        raise AssertionError("the file is read again")

    monkeypatch.setattr("backend.workspace.pgn._file_reader.PgnFileReader._read", unread)
    monkeypatch.setattr("backend.workspace.pgn._file_reader.PgnFileReader._read_for_study", unread)
    again = await send_pgn(studio.teacher, games(2), path, headers=headers)
    assert (again.status_code, again.json()) == (201, report)
    assert again.headers["idempotent-replayed"] == "true"
    other = await send_pgn(studio.teacher, games(1), path, headers=headers)
    assert other.json()["error_code"] == "IDEMPOTENCY_KEY_REUSED"
