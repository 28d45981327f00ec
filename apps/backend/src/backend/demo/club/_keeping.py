"""Nothing of the study is lost: not in the bin, and not by a change."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from shared_types.workspace import WorkspaceEvent

from backend.demo._expect import require
from backend.demo.club._scene import Scene

__all__ = ("change_and_go_back", "delete", "restore")

#: What the difference of two versions has beside the chapters that changed.
_BESIDE: Final = ("title_changed", "description_changed", "added", "removed", "renamed", "reordered")
#: What one of those has beside new moves.
_OTHERS: Final = ("headers", "moves_removed_count", "annotated_count", "reordered_count")


async def delete(scene: Scene) -> None:
    """The study goes into the bin, and is nowhere else any more.

    Raises:
        StepMissed: it did not happen; so below.
    """
    people, teacher = scene.people, scene.people.teacher
    match = await scene.version()
    await teacher.ask("delete the study", "DELETE", f"/nodes/{scene.study_id}", 204, match=match)
    for one in (teacher, people.coach, people.pupil, people.guest):
        await one.refused("read what was deleted", "GET", scene.path, 404, "NODE_NOT_FOUND")
    scene.say("teacher", "delete the study → 204; it is 404 for everybody now")
    await scene.told(WorkspaceEvent.NODE_SOFT_DELETED)
    binned = (await teacher.get("look into the bin", "/trash"))["items"]
    require(
        any(one["id"] == scene.study_id for one in binned), f"the bin should have the study, not {binned}"
    )
    scene.say("teacher", "look into the bin → 200, it is there")


async def restore(scene: Scene, thread: str) -> None:
    """It comes back to its place, with the discussion that it had."""
    teacher, pupil = scene.people.teacher, scene.people.pupil
    restored = await teacher.ask("restore the study", "POST", f"/nodes/{scene.study_id}/restore", 200)
    place = restored.json()["restored_to"]
    require(place == scene.folder_id, f"it should be in the folder {scene.folder_id} again, not in {place}")
    scene.say("teacher", "restore it → 200, to its place in the folder")
    await scene.told(WorkspaceEvent.NODE_RESTORED)
    read = await pupil.get("read the discussion", thread)
    kept = [(reply["author_id"], reply["reactions"]) for reply in read["replies"]]
    settled = read["resolved_by"] == scene.people.coach.name
    wanted = [(pupil.name, {"♟": [teacher.name]})]
    require(settled and kept == wanted, f"the discussion should be back as it was, not {read}")
    scene.say("pupil", "read the discussion again → 200, all is there")


async def change_and_go_back(scene: Scene) -> None:
    """A version is kept, a move is added, and taken back by going back to the version."""
    teacher = scene.people.teacher
    versions, label = f"{scene.path}/versions", {"label": "As it was played"}
    kept = (await teacher.ask("keep a version", "POST", versions, 201, label)).json()["number"]
    scene.say("teacher", f"keep version {kept} → 201")
    await scene.told(WorkspaceEvent.STUDY_SNAPSHOT_CREATED)
    chapter = await scene.chapter()
    wish = {"after": _end_of_main_line(chapter["moves"]), "move": "O-O"}
    path = f"{scene.path}/chapters/{chapter['id']}/moves"
    await scene.people.coach.ask("add a move", "POST", path, 201, wish, match=chapter["version"])
    await _require_moves_more(scene, kept, 1)
    scene.say("coach", f"add a move → 201; the difference to version {kept} is that move")
    await scene.told(WorkspaceEvent.MOVE_ADDED)
    match, back = await scene.version(), {"version": kept}
    answer = await teacher.ask("go back", "POST", f"{scene.path}/rollback", 201, back, match=match)
    await _require_moves_more(scene, kept, 0)
    scene.say("teacher", f"go back to version {kept} → 201, as version {answer.json()['number']}")
    await scene.told(WorkspaceEvent.STUDY_ROLLED_BACK)


async def _require_moves_more(scene: Scene, version: int, moves: int) -> None:
    """The study has so many moves more than *version*, and is the same otherwise."""
    diff = await scene.people.teacher.get("compare", f"{scene.path}/versions/{version}/diff?against=current")
    others = any(diff[name] for name in _BESIDE) or any(
        one[name] for one in diff["changed"] for name in _OTHERS
    )
    found = sum(one["moves_added_count"] for one in diff["changed"])
    require(
        found == moves and not others,
        f"{moves} moves more than in version {version} expected, and no other difference; there is {diff}",
    )


def _end_of_main_line(moves: Sequence[Mapping[str, Any]]) -> str:
    """The path of the last main move: each first child of the one before."""
    at, path = -1, ""
    for index, move in enumerate(moves):
        if move["parent"] == at:
            at, path = index, move["move_path"]
    return path
