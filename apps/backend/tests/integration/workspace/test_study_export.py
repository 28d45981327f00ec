"""A study as PGN: complete, without comments, only the main line, or from one move on."""

from uuid import UUID

import pytest
from backend.workspace.chess import ReadGame, read_games

from tests.fixtures.studies import Chapter, StudyFactory
from tests.fixtures.studio import Person, Studio

PGN = """[White "Anna"]
[Black "Boris"]

1. e4 $1 { best [%clk 1:30:00] } e5 (1... c5 { sharp } 2. Nf3) 2. Nf3 1-0"""


async def exported(person: Person, chapter: Chapter, query: str = "") -> str:
    answer = await person.send("GET", f"{chapter.study_path}/export{query}")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/x-chess-pgn; charset=utf-8"
    return answer.content.decode()


def movetext(file: str) -> str:
    return " ".join(line for line in file.splitlines() if line and not line.startswith("["))


async def test_exported_and_imported_study_is_the_same(studio: Studio, studies: StudyFactory) -> None:
    chapter = await studies.chapter(PGN)
    await studies.chapter("1. d4 { Größe } d5 *", study=chapter.study, position=1)
    file = await exported(studio.teacher, chapter)
    first, second = read_games(file.encode())
    [original] = read_games(PGN.encode())
    assert isinstance(first, ReadGame)
    assert isinstance(second, ReadGame)
    assert isinstance(original, ReadGame)
    assert (first.headers, first.tree) == (original.headers, original.tree)
    assert second.tree.moves[0].annotation.text == "Größe"


async def test_export_mode_omits_the_requested_parts(studio: Studio, studies: StudyFactory) -> None:
    chapter = await studies.chapter(PGN)
    plain = movetext(await exported(studio.teacher, chapter, "?mode=no_comment"))
    assert plain == "1. e4 e5 (1... c5 2. Nf3) 2. Nf3 1-0"
    line = movetext(await exported(studio.teacher, chapter, "?mode=mainline"))
    assert line == "1. e4 $1 { [%clk 1:30:00] best } 1... e5 2. Nf3 1-0"


async def test_clip_begins_at_a_move(studio: Studio, studies: StudyFactory) -> None:
    chapter = await studies.chapter(PGN)
    query = f"?mode=clip&chapter_id={chapter.id}&move_path=e2e4.c7c5"
    clip = await exported(studio.teacher, chapter, query)
    assert '[FEN "rnbqkbnr/pppppppp/8/8/4P3/8/PPPP1PPP/RNBQKBNR b KQkq - 0 1"]' in clip
    assert movetext(clip) == "1... c5 { sharp } 2. Nf3 1-0"


async def test_one_chapter_or_an_empty_study_can_be_exported(studio: Studio, studies: StudyFactory) -> None:
    chapter = await studies.chapter(PGN)
    other = await studies.chapter("1. d4 d5 *", study=chapter.study, position=1)
    assert movetext(await exported(studio.teacher, chapter, f"?chapter_id={other.id}")) == "1. d4 d5 *"
    empty = await studies.study()
    answer = await studio.teacher.send("GET", f"/studies/{empty['id']}/export")
    assert (answer.status_code, answer.content) == (200, b"")


async def test_name_of_the_file_is_the_title_with_unsafe_characters_removed(
    studio: Studio, studies: StudyFactory
) -> None:
    study = await studies.study()
    chapter = await studies.chapter(PGN, study=study)
    # Such titles are refused now; rows of an earlier version may have them.
    async with studio.backbone.database.connection() as connection:
        await connection.fetch(
            "UPDATE workspace_nodes SET title = $2 WHERE id = $1",
            UUID(study["id"]),
            '../../Größe "x"\r\nSet-Cookie: a; \u202egnp.exe',
        )
    answer = await studio.teacher.send("GET", f"{chapter.study_path}/export?chapter_id={chapter.id}")
    plain, _, encoded = answer.headers["content-disposition"].partition("; filename*=")
    assert plain == 'attachment; filename="Gr_e x Set-Cookie a_ gnp.exe - Anna _ Boris.pgn"'
    assert encoded.startswith("UTF-8''Gr%C3%B6%C3%9Fe%20x%20Set-Cookie")
    assert "set-cookie" not in answer.headers


async def test_anonymous_requester_exports_a_public_study(studio: Studio, studies: StudyFactory) -> None:
    study = await studies.study(visibility="public")
    chapter = await studies.chapter(PGN, study=study)
    assert "Anna" in await exported(studio.anonymous, chapter)
    assert "Anna" in await exported(studio.stranger, chapter)


@pytest.mark.guarantee("G82")
async def test_invalid_export_is_refused(studio: Studio, studies: StudyFactory) -> None:
    chapter = await studies.chapter(PGN)
    clip = f"mode=clip&chapter_id={chapter.id}"
    for status, code, query in [
        (422, "VALIDATION_ERROR", "mode=all"),
        (422, "VALIDATION_ERROR", "mode=clip&move_path=e2e4"),
        (422, "VALIDATION_ERROR", "move_path=e2e4"),
        (422, "VALIDATION_ERROR", "chapter_id=first"),
        (422, "CLIP_PATH_MISSING", clip),
        (422, "CLIP_PATH_MISSING", f"{clip}&move_path="),
        (422, "MOVE_NOT_FOUND", f"{clip}&move_path=d2d4"),
        (404, "NOT_FOUND_IN_NODE", f"chapter_id={chapter.study['id']}"),
    ]:
        path = f"{chapter.study_path}/export?{query}"
        assert await studio.teacher.error_code(status, "GET", path) == code
