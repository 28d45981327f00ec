"""The response with the differences between two states of a study."""

from collections.abc import Iterable
from typing import Any
from uuid import UUID, uuid4

import pytest
from backend.workspace.chess import _diff
from backend.workspace.studies._diff import diff_versions
from backend.workspace.studies._versions import StudyContent

FIRST, SECOND = uuid4(), uuid4()
LINE = ("g1f3", "g8f6", "f3g1", "f6g8")


def chapter(id_: UUID, moves: Iterable[dict[str, Any]], **fields: Any) -> dict[str, Any]:
    return {
        "id": str(id_),
        "position": 0,
        "title": "Chapter",
        "headers": {"White": "Anna"},
        "moves": {"moves": list(moves)},
        **fields,
    }


def line(**said: Any) -> list[dict[str, Any]]:
    return [{"parent": place - 1, "uci": uci, **said} for place, uci in enumerate(LINE)]


def study(number: int | None, *chapters: dict[str, Any], title: str = "Study") -> StudyContent:
    return StudyContent(number=number, title=title, description="", chapters=chapters)


def test_diff_names_added_and_deleted_parts() -> None:
    before = study(1, chapter(FIRST, line(), title="Old"), chapter(SECOND, []))
    after = study(None, chapter(FIRST, line()[:2], headers={"White": "Boris"}), title="Other")
    found = diff_versions(before, after)
    assert (found.version, found.against, found.title_changed) == (1, "current", True)
    assert [one.chapter_id for one in found.removed] == [SECOND]
    assert [(one.before, one.after) for one in found.renamed] == [("Old", "Chapter")]
    [of] = found.changed
    assert (of.headers, of.moves_removed_count) == (["White"], 1)
    assert [(one.path, one.moves) for one in of.moves_removed] == [("g1f3.g8f6.f3g1", 2)]


def test_diff_lists_a_limited_number_of_paths_and_counts_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_diff, "PATHS_CHARS_MAX", 4 + 9 + 4)
    before = study(1, chapter(FIRST, line()), chapter(SECOND, line()))
    after = study(2, chapter(FIRST, line(text="x")), chapter(SECOND, line(text="x")))
    found = diff_versions(before, after)
    assert [one.annotated for one in found.changed] == [["g1f3", "g1f3.g8f6"], ["g1f3"]]
    assert [one.annotated_count for one in found.changed] == [4, 4]
