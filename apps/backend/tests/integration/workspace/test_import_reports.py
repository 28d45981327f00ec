"""Reports of imports: games that were changed while they were read, or left out."""

from itertools import takewhile

from backend.rebuilding import Difference, rebuild
from backend.workspace import NodeProjection
from relaybox.db import Database

from tests.fixtures.pgn import BROKEN_GAME, game, import_pgn, import_refused
from tests.fixtures.studio import Studio

#: Its variations repeat the last move and a glyph of the main line; in a real file, 19 half-moves became 48.
REPEATED = """\
[White "W"]
[Black "B"]
[Result "1–0"]

1. e4 $1 (1. e4 $6 c5) e5 2. Nf3 Nc6 3. Bc4 Bc5 4. o-o {castled}
(4. O-O Nf6 5. d3 {solid} (5. d4) d6) 1–0
"""


async def test_main_line_of_a_file_stays_in_versions_and_after_edits(
    studio: Studio, database: Database
) -> None:
    report = await import_pgn(studio.teacher, REPEATED)
    path = f"/studies/{report['studies'][0]['id']}"
    [chapter] = (await studio.teacher.call("GET", path))["chapters"]
    moves = f"{path}/chapters/{chapter['id']}"

    async def main_line() -> list[str]:
        shown = (await studio.teacher.call("GET", moves))["moves"]
        first = takewhile(lambda numbered: numbered[1]["parent"] == numbered[0] - 1, enumerate(shown))
        return [one["san"] for _, one in first]

    async def exported() -> str:
        text = (await studio.teacher.send("GET", f"{path}/export")).text
        return " ".join(text.partition("\n\n")[2].split())

    line = ["e4", "e5", "Nf3", "Nc6", "Bc4", "Bc5", "O-O"]
    text = "castled (4... Nf6 5. d3 solid (5. d4) 5... d6)"
    pgn = f"1. e4 $1 e5 (1... c5) 2. Nf3 Nc6 3. Bc4 Bc5 4. O-O {{ {text} }} 1-0"
    assert (await main_line(), await exported()) == (line, pgn)
    await studio.teacher.call("POST", f"{path}/versions", {"label": "as imported"})
    await studio.teacher.call("POST", f"{moves}/variations/e2e4.c7c5/promote", match=1)
    assert await main_line() == ["e4", "c5"]
    await studio.teacher.call("POST", f"{moves}/variations/e2e4.c7c5/demote", match=2)
    assert (await main_line(), await exported()) == (line, pgn)
    after = "e2e4.e7e5.g1f3.b8c6.f1c4.f8c5.e1g1"
    await studio.teacher.call("POST", f"{moves}/moves", {"after": after, "move": "Nf6"}, match=3)
    assert await main_line() == [*line, "Nf6"]
    version = (await studio.teacher.call("GET", path))["version"]
    await studio.teacher.call("POST", f"{path}/rollback", {"version": 1}, match=version)
    assert (await main_line(), await exported()) == (line, pgn)
    found: list[Difference] = []
    rebuilt = await rebuild(database, NodeProjection(), write=False, on_difference=found.append)
    assert (rebuilt.aggregates, found) == (1, [])


async def test_report_names_what_is_dropped_and_what_is_normalised(studio: Studio) -> None:
    report = await import_pgn(studio.teacher, f"{game(1)}\nsee you\n\n{REPEATED}")
    assert (report["dropped_count"], report["normalised_count"]) == (2, 4)
    assert report["dropped"] == [
        {"game": 2, "line": 8, "note": "text between games", "count": 1},
        {"game": 2, "line": 14, "note": "the glyph $6 of a move that occurs twice", "count": 1},
    ]
    assert [(one["line"], one["note"], one["count"]) for one in report["normalised"]] == [
        (12, "the result 1–0 is read as 1-0", 2),
        (14, "a variation begins with a move that exists already; the two are merged", 2),
        (14, "o-o is read as O-O", 1),
        (15, "moves after the last move of the main line (4) are kept as its text", 1),
    ]


async def test_report_lists_100_notes_and_counts_all(studio: Studio) -> None:
    report = await import_pgn(studio.teacher, "\n".join(game(at, "1. e4 e5 1–0") for at in range(101)))
    assert (report["normalised_count"], len(report["normalised"])) == (101, 100)
    assert (report["dropped_count"], report["dropped"]) == (0, [])


async def test_all_games_are_listed_when_all_are_refused(studio: Studio) -> None:
    refusal = await import_refused(studio.teacher, 422, "\n".join([BROKEN_GAME] * 3))
    assert (refusal["error_code"], refusal["game"], refusal["line"]) == ("PGN_INVALID", 1, 5)
    assert refusal["message"].startswith("none of the 3 games can be imported; the first is game 1, line 5: ")
    assert refusal["skipped_count"] == 3
    assert [(one["game"], one["line"]) for one in refusal["skipped"]] == [(1, 5), (2, 11), (3, 17)]
    assert all("Ke4" in one["reason"] for one in refusal["skipped"])
    refusal = await import_refused(studio.teacher, 422, "\n".join([BROKEN_GAME] * 101))
    assert (refusal["skipped_count"], len(refusal["skipped"])) == (101, 100)
    refusal = await import_refused(studio.teacher, 422, "nothing")
    assert (refusal["skipped_count"], refusal["skipped"]) == (0, [])
