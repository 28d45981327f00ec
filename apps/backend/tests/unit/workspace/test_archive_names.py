"""Paths in a zip are valid on every operating system, and unique."""

from typing import Any
from uuid import UUID

import pytest
from backend.workspace.pgn._archives import _free, plan_archive, safe_name
from pydantic_core import to_json


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("Müller – Kovač, 1. Runde", "Müller – Kovač, 1. Runde"),
        ("../../etc/passwd", "etc passwd"),
        ("C:\\games", "C games"),
        ('a<b>c:d"e|f?g*h', "a b c d e f g h"),
        ("line\nbreak\x7f", "line break"),
        ("ends. . ", "ends"),
        (" .hidden", "hidden"),
        ("...", "untitled"),
        ("\u202e", "untitled"),
        ("con", "_con"),
        ("LPT1.games", "_LPT1.games"),
        ("console", "console"),
        ("x" * 200, "x" * 80),
        ("e\u0301tude", "\u00e9tude"),
    ],
)
def test_file_name_is_valid_on_every_system(title: str, name: str) -> None:
    assert safe_name(title) == name


def node(number: int, kind: str, title: str, parent: int | None, depth: int) -> dict[str, Any]:
    when = "2024-05-06T07:08:09+00:00"
    return {
        "id": UUID(int=number), "kind": kind, "title": title, "depth": depth, "description": "",
        "parent_id": None if parent is None else UUID(int=parent), "position": 0, "layout": None,
        "visibility": "shared", "version": 1, "created_by": "a", "created_at": when, "changed_at": when,
    }  # fmt: skip


def paths(*nodes: dict[str, Any]) -> list[str]:
    return [one.path for one in plan_archive(to_json(nodes).decode()).studies]


def test_archive_path_contains_the_folders_of_a_study() -> None:
    tree = (
        node(1, "workspace", "Club", None, 0),
        node(2, "folder", "a", 1, 1),
        node(3, "study", "s", 1, 1),
        node(4, "folder", "b", 2, 2),
        node(5, "study", "t", 4, 3),
    )
    assert paths(*tree) == ["Club/s.pgn", "Club/a/b/t.pgn"]


def test_archive_path_starts_at_the_exported_node() -> None:
    assert paths(node(2, "folder", "a", 1, 0), node(3, "study", "s", 2, 1)) == ["a/s.pgn"]
    assert paths(node(3, "study", "s", 2, 0)) == ["s.pgn"]


def test_equal_names_of_a_folder_are_numbered_ignoring_case() -> None:
    tree = (
        node(1, "folder", "Club", None, 0),
        node(2, "folder", "a", 1, 1),
        node(3, "folder", "A", 1, 1),
        node(4, "study", "s?", 2, 2),
        node(5, "study", "S*", 2, 2),
        node(6, "study", "s (2)", 2, 2),
        node(7, "study", "s", 3, 2),
    )
    assert paths(*tree) == ["Club/a/s.pgn", "Club/a/S (2).pgn", "Club/a/s (2) (2).pgn", "Club/A (2)/s.pgn"]


def test_nodes_in_a_path_are_recorded_and_no_others() -> None:
    tree = (
        node(1, "workspace", "Club", None, 0),
        node(2, "folder", "a", 1, 1),
        node(3, "folder", "empty", 1, 1),
        node(4, "folder", "b", 2, 2),
        node(5, "study", "t", 4, 3),
    )
    assert plan_archive(to_json(tree).decode()).named == {UUID(int=number) for number in (1, 2, 4, 5)}
    below = (node(2, "folder", "a", 1, 0), node(5, "study", "t", 2, 1))
    assert plan_archive(to_json(below).decode()).named == {UUID(int=2), UUID(int=5)}


def test_equal_names_do_not_make_a_large_folder_slow() -> None:
    looks = 0

    class Counted(dict[str, int]):
        def __contains__(self, key: object) -> bool:
            nonlocal looks
            looks += 1
            return super().__contains__(key)

    taken = Counted()
    assert [_free("", "s", ".pgn", taken) for _ in range(100)][-1] == "s (100).pgn"
    assert looks <= 200
