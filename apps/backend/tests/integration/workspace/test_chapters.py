"""Reading chapters and changing their moves: each change needs the current version and is one event."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest
from backend.rebuilding import rebuild
from backend.workspace import NodeProjection
from backend.workspace.chess import VARIATIONS_MAX, _edit
from backend.workspace.studies import _chapters as chapters
from relaybox.db import Database

from tests.fixtures.studies import Chapter, StudyFactory, knight_moves, knight_moves_pgn
from tests.fixtures.studio import Person, Studio

TOLD = """
SELECT payload ->> 'target_type' AS target_type, payload ->> 'target_id' AS target_id FROM event_outbox
WHERE key = $1 AND (payload ->> 'version')::int = $2
"""
TRASH = """
UPDATE workspace_nodes SET trashed_at = now(), trashed_by = 'teacher', trash_batch_id = $1, trash_count = 1,
    trash_path = '{}'
WHERE id = $1::uuid
"""
ANNOTATED = (
    "{ Begin [%cal Ge2e4] } 1. e4 $1 { best [%clk 1:30:00] } e5 ( { or } 1... c5 2. Nf3 ) 2. Nf3 1/2-1/2"
)


async def moves_of(person: Person, chapter: Chapter) -> list[str]:
    return [one["move_path"] for one in (await person.call("GET", chapter.path))["moves"]]


async def differences(database: Database) -> list[Any]:
    found: list[Any] = []
    await rebuild(database, NodeProjection(), write=False, on_difference=found.append)
    return found


async def test_chapter_is_shown_move_by_move(studio: Studio, studies: StudyFactory) -> None:
    chapter = await studies.chapter(ANNOTATED)
    answer = await studio.teacher.send("GET", chapter.path)
    shown = answer.json()
    assert answer.headers["etag"] == '"1"'
    assert (shown["id"], shown["study_id"], shown["version"]) == (str(chapter.id), chapter.study["id"], 1)
    assert (shown["start"]["text"], shown["start"]["arrows"]) == ("Begin", ["Ge2e4"])
    paths = ["e2e4", "e2e4.e7e5", "e2e4.e7e5.g1f3", "e2e4.c7c5", "e2e4.c7c5.g1f3"]
    assert [one["move_path"] for one in shown["moves"]] == paths
    assert [one["parent"] for one in shown["moves"]] == [-1, 0, 1, 0, 3]
    assert [one["san"] for one in shown["moves"]] == ["e4", "e5", "Nf3", "c5", "Nf3"]
    assert [one["ply"] for one in shown["moves"]] == [1, 2, 3, 2, 3]
    first, variation = shown["moves"][0], shown["moves"][3]
    assert first["fen"] == "rnbqkbnr/pppppppp/8/8/4P3/8/PPPP1PPP/RNBQKBNR b KQkq - 0 1"
    assert (first["nags"], first["text"], first["clock_s"]) == ([1], "best", 5400.0)
    assert variation["before"] == "or"


async def test_added_move_is_the_last_variation(
    studio: Studio, studies: StudyFactory, database: Database
) -> None:
    chapter = await studies.chapter()
    body = {"after": "e2e4", "move": "d7d5", "annotation": {"text": " bold ", "nags": [5]}}
    answer = await studio.teacher.send("POST", f"{chapter.path}/moves", body, match=1)
    added = answer.json()
    assert (answer.status_code, answer.headers["etag"]) == (201, '"2"')
    assert (added["move_path"], added["san"], added["ply"], added["version"]) == ("e2e4.d7d5", "d5", 2, 2)
    assert (added["text"], added["nags"]) == ("bold", [5])
    assert added["fen"].startswith("rnbqkbnr/ppp1pppp/8/3p4/4P3/")
    assert await moves_of(studio.teacher, chapter) == [
        *("e2e4", "e2e4.e7e5", "e2e4.e7e5.g1f3", "e2e4.c7c5", "e2e4.c7c5.g1f3"),
        "e2e4.d7d5",
    ]
    event = (await studio.stream(chapter.study["id"]))[-1]
    async with database.connection() as connection:
        [told] = await connection.fetch(TOLD, chapter.study["id"], event.version)
    assert (event.type, told["target_type"]) == ("study.chapter.move_added", "CHAPTER")
    assert told["target_id"] == str(chapter.id)
    assert (event.payload["move_path"], event.payload["san"]) == ("e2e4.d7d5", "d5")
    # Neither the list of chapters nor the version of the study has changed.
    assert (await studio.teacher.call("GET", chapter.study_path))["version"] == 2
    assert await differences(database) == []


async def test_first_move_castling_and_promotion_can_be_added(studio: Studio, studies: StudyFactory) -> None:
    chapter = await studies.chapter('[FEN "4k3/P7/8/8/8/8/8/4K2R w K - 0 1"]\n[SetUp "1"]\n\n*')
    path, version = "", 1
    for move, uci in [("O-O", "e1g1"), ("--", "0000"), ("a8=Q+", "a7a8q")]:
        body = {"after": path, "move": move}
        added = await studio.teacher.call("POST", f"{chapter.path}/moves", body, match=version)
        assert added["uci"] == uci
        path, version = added["move_path"], added["version"]
    assert path == "e1g1.0000.a7a8q"


REFUSED_MOVES = [
    (422, "MOVE_ILLEGAL", {"after": "e2e4", "move": "e2e4"}),
    (422, "MOVE_ILLEGAL", {"after": "", "move": "hello"}),
    (409, "MOVE_EXISTS", {"after": "e2e4", "move": "c5"}),
    (422, "MOVE_NOT_FOUND", {"after": "d2d4", "move": "d5"}),
    (422, "MOVE_NOT_FOUND", {"after": "start", "move": "d5"}),
    (422, "VALIDATION_ERROR", {"move": "d4"}),
    (422, "VALIDATION_ERROR", {"after": "", "move": ""}),
    (422, "VALIDATION_ERROR", {"after": "", "move": "d" * 21}),
    (422, "VALIDATION_ERROR", {"after": "e" * 120_001, "move": "d4"}),
    (422, "VALIDATION_ERROR", {"after": "", "move": "d4", "position": 0}),
    (422, "VALIDATION_ERROR", {"after": "", "move": "d4", "annotation": {"nags": [256]}}),
    (422, "ANNOTATION_INVALID", {"after": "", "move": "d4", "annotation": {"arrows": ["e2e4"]}}),
]


@pytest.mark.guarantee("G82")
async def test_illegal_move_is_refused(studio: Studio, studies: StudyFactory) -> None:
    chapter = await studies.chapter()
    for status, code, body in REFUSED_MOVES:
        assert await studio.teacher.error_code(status, "POST", f"{chapter.path}/moves", body, match=1) == code
    assert len(await studio.stream(chapter.study["id"])) == 2


async def test_deleting_a_move_deletes_all_moves_after_it(
    studio: Studio, studies: StudyFactory, database: Database
) -> None:
    chapter = await studies.chapter(ANNOTATED)
    answer = await studio.teacher.send("DELETE", f"{chapter.path}/moves/e2e4.e7e5", match=1)
    assert (answer.status_code, answer.headers["etag"], answer.content) == (204, '"2"', b"")
    shown = await studio.teacher.call("GET", chapter.path)
    assert [one["move_path"] for one in shown["moves"]] == ["e2e4", "e2e4.c7c5", "e2e4.c7c5.g1f3"]
    # The variation is now the main line, where PGN has no comment before a move.
    assert (shown["moves"][1]["before"], shown["moves"][1]["text"]) == ("", "or")
    event = (await studio.stream(chapter.study["id"]))[-1]
    assert (event.type, event.payload["moves"]) == ("study.chapter.move_deleted", 2)
    assert await differences(database) == []
    for gone in ("e2e4.e7e5", "start", "e2e4."):
        path = f"{chapter.path}/moves/{gone}"
        assert await studio.teacher.error_code(404, "DELETE", path, match=2) == "NOT_FOUND_IN_NODE"


async def test_move_path_stays_valid_after_variations_are_swapped(
    studio: Studio, studies: StudyFactory, database: Database
) -> None:
    chapter = await studies.chapter("1. e4 e5 (1... c5 2. Nf3) (1... c6) 2. Nf3")
    steps = f"{chapter.path}/variations"
    changed = await studio.teacher.call("POST", f"{steps}/e2e4.c7c6/promote", match=1)
    assert (changed["version"], changed["move_path"]) == (2, "e2e4.c7c6")
    await studio.teacher.call("POST", f"{steps}/e2e4.c7c6/promote", match=2)
    paths = ["e2e4", "e2e4.c7c6", "e2e4.e7e5", "e2e4.e7e5.g1f3", "e2e4.c7c5", "e2e4.c7c5.g1f3"]
    assert await moves_of(studio.teacher, chapter) == paths
    first, last = f"{steps}/e2e4.c7c6/promote", f"{steps}/e2e4.c7c5/demote"
    assert await studio.teacher.error_code(422, "POST", first, match=3) == "VARIATION_FIRST"
    assert await studio.teacher.error_code(422, "POST", last, match=3) == "VARIATION_LAST"
    answer = await studio.teacher.send("POST", f"{steps}/e2e4.e7e5/demote", match=3)
    assert answer.headers["etag"] == '"4"'
    assert (await moves_of(studio.teacher, chapter))[2] == "e2e4.c7c5"
    gone = f"{steps}/e2e4.d7d5/promote"
    assert await studio.teacher.error_code(404, "POST", gone, match=4) == "NOT_FOUND_IN_NODE"
    types = [event.type.rpartition(".")[2] for event in await studio.stream(chapter.study["id"])][2:]
    assert types == ["variation_promoted", "variation_promoted", "variation_demoted"]
    assert await differences(database) == []


async def test_annotation_is_replaced_as_a_whole(
    studio: Studio, studies: StudyFactory, database: Database
) -> None:
    chapter = await studies.chapter(ANNOTATED)
    path = f"{chapter.path}/moves/e2e4/annotation"
    words = {"text": "so so [%clk 0:00:30]", "nags": [6, 1, 6], "circles": ["Rd4"]}
    answer = await studio.teacher.send("PUT", path, words, match=1)
    said = answer.json()
    assert (answer.status_code, answer.headers["etag"]) == (200, '"2"')
    assert (said["text"], said["nags"], said["clock_s"], said["circles"]) == ("so so", [1, 6], 30.0, ["Rd4"])
    # Repeating the request changes nothing and records no event.
    same = await studio.teacher.send("PUT", path, words, match=2)
    assert (same.status_code, same.headers["etag"]) == (200, '"2"')
    assert len(await studio.stream(chapter.study["id"])) == 3
    await studio.teacher.call("PUT", path, {}, match=2)
    shown = (await studio.teacher.call("GET", chapter.path))["moves"][0]
    assert (shown["text"], shown["nags"], shown["clock_s"]) == ("", [], None)
    assert await differences(database) == []


async def test_start_of_a_chapter_can_have_an_annotation(
    studio: Studio, studies: StudyFactory, database: Database
) -> None:
    chapter = await studies.chapter()
    path = f"{chapter.path}/moves/start/annotation"
    said = await studio.teacher.call("PUT", path, {"text": "Look", "before": "Well"}, match=1)
    assert (said["move_path"], said["text"], said["before"]) == ("", "Well\nLook", "")
    assert (await studio.teacher.call("GET", chapter.path))["start"]["text"] == "Well\nLook"
    assert await studio.teacher.error_code(422, "PUT", path, {"nags": [1]}, match=2) == "ANNOTATION_INVALID"
    await studio.teacher.call("PUT", path, {}, match=2)
    assert (await studio.teacher.call("GET", chapter.path))["start"]["text"] == ""
    assert await differences(database) == []


REFUSED_ANNOTATIONS = [
    ("VALIDATION_ERROR", {"text": "x" * 10_001}),
    ("ANNOTATION_INVALID", {"text": "x" * 6_000, "before": "x" * 6_000}),
    ("VALIDATION_ERROR", {"nags": [-1]}),
    ("VALIDATION_ERROR", {"nags": 1}),
    ("VALIDATION_ERROR", {"clock_s": -1}),
    ("VALIDATION_ERROR", {"clock_s": 3_600_000}),
    ("VALIDATION_ERROR", {"arrows": ["Ge2e4"] * 257}),
    ("ANNOTATION_INVALID", {"arrows": ["Ge2e2"]}),
    ("ANNOTATION_INVALID", {"circles": ["Xe2"]}),
    ("VALIDATION_ERROR", {"circles": ["Ge2e4e5"]}),
    ("VALIDATION_ERROR", {"comment": "x"}),
    ("JSON_NOT_STORABLE", {"text": "\0"}),
]


@pytest.mark.guarantee("G82")
async def test_invalid_annotation_is_refused(studio: Studio, studies: StudyFactory) -> None:
    chapter = await studies.chapter()
    path = f"{chapter.path}/moves/e2e4/annotation"
    for code, body in REFUSED_ANNOTATIONS:
        assert await studio.teacher.error_code(422, "PUT", path, body, match=1) == code


async def test_every_change_of_a_chapter_requires_its_version(studio: Studio, studies: StudyFactory) -> None:
    chapter = await studies.chapter()
    other = await studies.chapter(study=chapter.study)
    for method, below, body in [
        ("POST", "/moves", {"after": "", "move": "d4"}),
        ("DELETE", "/moves/e2e4.c7c5", None),
        ("POST", "/variations/e2e4.c7c5/promote", None),
        ("POST", "/variations/e2e4.e7e5/demote", None),
        ("PUT", "/moves/e2e4/annotation", {"text": "x"}),
    ]:
        path = chapter.path + below
        assert await studio.teacher.error_code(428, method, path, body) == "IF_MATCH_MISSING"
        stale = await studio.teacher.send(method, path, body, match=9)
        assert (stale.status_code, stale.json()["current_version"]) == (412, 1)
        elsewhere = f"{chapter.study_path}/chapters/{uuid4()}{below}"
        assert await studio.teacher.error_code(404, method, elsewhere, body, match=1) == "NOT_FOUND_IN_NODE"
        none = f"{chapter.study_path}/chapters/first{below}"
        assert await studio.teacher.error_code(404, method, none, body, match=1) == "NOT_FOUND_IN_NODE"
    # A chapter is found only under its own study.
    stranger = await studies.study()
    path = f"/studies/{stranger['id']}/chapters/{other.id}"
    assert await studio.teacher.error_code(404, "GET", path) == "NOT_FOUND_IN_NODE"


async def test_every_write_with_a_key_is_executed_once(studio: Studio, studies: StudyFactory) -> None:
    chapter = await studies.chapter()
    version = 1
    for method, below, body in [
        ("POST", "/moves", {"after": "", "move": "d4"}),
        ("POST", "/variations/d2d4/promote", None),
        ("POST", "/variations/d2d4/demote", None),
        ("PUT", "/moves/d2d4/annotation", {"text": "x"}),
    ]:
        once: dict[str, Any] = {"match": version, "headers": {"Idempotency-Key": below}}
        first = await studio.teacher.send(method, chapter.path + below, body, **once)
        # The version is stale now: the key is checked before the version.
        again = await studio.teacher.send(method, chapter.path + below, body, **once)
        assert first.is_success, first.text
        assert (again.status_code, again.content) == (first.status_code, first.content)
        assert (again.headers["idempotent-replayed"], again.headers["etag"]) == (
            "true",
            first.headers["etag"],
        )
        version += 1
    assert len(await studio.stream(chapter.study["id"])) == 2 + 4


async def test_only_one_of_two_concurrent_changes_of_a_chapter_succeeds(
    studio: Studio, studies: StudyFactory
) -> None:
    chapter = await studies.chapter()
    tries = [
        studio.teacher.send("POST", f"{chapter.path}/moves", {"after": "", "move": move}, match=1)
        for move in ("d4", "c4", "b4", "Nf3")
    ]
    answers = await asyncio.gather(*tries)
    assert sorted(one.status_code for one in answers) == [201, 412, 412, 412]
    assert {one.json()["current_version"] for one in answers if one.status_code == 412} == {2}
    assert len(await studio.stream(chapter.study["id"])) == 3


async def test_concurrent_changes_of_two_chapters_both_succeed(
    studio: Studio, studies: StudyFactory, database: Database
) -> None:
    study = await studies.study()
    both = [await studies.chapter(study=study) for _ in range(2)]
    for version in range(1, 4):
        tries = [
            studio.teacher.send(
                "PUT", f"{one.path}/moves/e2e4/annotation", {"text": f"{version}"}, match=version
            )
            for one in both
        ]
        assert [one.status_code for one in await asyncio.gather(*tries)] == [200, 200]
    assert await differences(database) == []


async def test_game_of_400_half_moves_can_be_extended(studio: Studio, studies: StudyFactory) -> None:
    chapter = await studies.chapter(knight_moves_pgn(400))
    path = ".".join(knight_moves(400))
    body = {"after": path, "move": "Nf3"}
    added = await studio.teacher.call("POST", f"{chapter.path}/moves", body, match=1)
    assert (added["ply"], added["move_path"]) == (401, f"{path}.g1f3")
    await studio.teacher.call("PUT", f"{chapter.path}/moves/{path}/annotation", {"text": "long"}, match=2)
    shown = (await studio.teacher.call("GET", chapter.path))["moves"]
    assert (len(shown), shown[399]["text"], shown[400]["parent"]) == (401, "long", 399)
    answer = await studio.teacher.send("DELETE", f"{chapter.path}/moves/{'.'.join(knight_moves(2))}", match=3)
    assert answer.status_code == 204
    assert await moves_of(studio.teacher, chapter) == ["g1f3"]


async def test_move_has_at_most_ten_variations(studio: Studio, studies: StudyFactory) -> None:
    chapter = await studies.chapter('[White "Anna"]\n\n*')
    moves = [f"{file}{rank}" for rank in "34" for file in "abcdefgh"]
    for version, move in enumerate(moves[: VARIATIONS_MAX + 1], 1):
        body = {"after": "", "move": move}
        await studio.teacher.call("POST", f"{chapter.path}/moves", body, match=version)
    body = {"after": "", "move": moves[VARIATIONS_MAX + 1]}
    path = f"{chapter.path}/moves"
    assert await studio.teacher.error_code(422, "POST", path, body, match="*") == "VARIATIONS_FULL"


async def test_chapter_can_grow_to_its_limits_and_shrink(
    studio: Studio, studies: StudyFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    chapter = await studies.chapter()
    path, words = f"{chapter.path}/moves/e2e4/annotation", {"text": "x" * 1000}
    monkeypatch.setattr(chapters, "CHAPTER_BYTES_MAX", 1000)
    assert await studio.teacher.error_code(422, "PUT", path, words, match=1) == "CHAPTER_FULL"
    body = {"after": "", "move": "d4", "annotation": words}
    assert (
        await studio.teacher.error_code(422, "POST", f"{chapter.path}/moves", body, match=1) == "CHAPTER_FULL"
    )
    monkeypatch.setattr(chapters, "CHAPTER_BYTES_MAX", 10)
    await studio.teacher.call("DELETE", f"{chapter.path}/moves/e2e4.c7c5", match=1)
    monkeypatch.setattr(_edit, "MOVES_MAX", 3)
    body = {"after": "", "move": "d4"}
    assert (
        await studio.teacher.error_code(422, "POST", f"{chapter.path}/moves", body, match=2) == "MOVES_FULL"
    )


async def test_chapters_of_a_trashed_study_are_not_found(studio: Studio, studies: StudyFactory) -> None:
    chapter = await studies.chapter()
    async with studio.backbone.database.connection() as connection:
        await connection.fetch(TRASH, chapter.study["id"])
    for method, path in [
        ("GET", chapter.path),
        ("POST", f"{chapter.path}/moves"),
        ("GET", chapter.study_path),
    ]:
        assert await studio.teacher.error_code(404, method, path, {}, match=1) == "NODE_NOT_FOUND"
