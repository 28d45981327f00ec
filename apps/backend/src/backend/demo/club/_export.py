"""All games leave the product as they came in."""

import asyncio
import re
import time
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any, Final
from zipfile import BadZipFile, ZipFile

from backend.demo._expect import require
from backend.demo._timeline import StepMissed
from backend.demo.club._scene import Scene

__all__ = ("export", "missing")

_PAUSE_S: Final = 0.1
_BEGIN: Final = re.compile(r'^(?=\[Event ")', re.MULTILINE)


async def export(scene: Scene, imported: str) -> None:
    """The study leaves as PGN, the folder as a zip that a worker makes, with the games that were *imported*.

    Raises:
        StepMissed: it did not happen, or a game is missing, or another than it was.
    """
    teacher = scene.people.teacher
    pgn = (await teacher.ask("export the study", "GET", f"{scene.path}/export", 200)).text
    scene.say("teacher", f"export the study → 200, {len(_games(pgn))} games as PGN")
    wish = {"node_id": scene.folder_id}
    task = (await teacher.ask("export the folder", "POST", "/export", 202, wish)).json()["task_id"]
    scene.say("teacher", "export the whole folder → 202, a task")
    await _completed(scene, f"/tasks/{task}")
    answer = await teacher.ask("fetch the file", "GET", f"/tasks/{task}/result", 200)
    files = _unpacked(answer.content)
    scene.say("worker", f"made a zip of {len(files)} files", *files)
    require(pgn in files.values(), "the zip should have the study as it is exported by itself")
    lost = missing(imported, "\n".join(files.values()))
    require(not lost, f"every game should leave as it came in; not so, among others: {lost[:1]}")
    scene.say(
        "teacher", f"compare: the {len(_games(imported))} games are those of the file, to the last comment"
    )


def missing(imported: str, exported: str) -> Sequence[str]:
    """Games that two PGN files do not have in common, whatever their order and where their lines break."""
    before, after = _games(imported), _games(exported)
    return [one for one in (*before, *after) if before.count(one) != after.count(one)]


def _games(pgn: str) -> Sequence[str]:
    """Each as one line."""
    return [" ".join(game.split()) for game in _BEGIN.split(pgn) if game.strip()]


async def _completed(scene: Scene, path: str) -> None:
    deadline = time.monotonic() + scene.witness.wait_s
    while True:
        task: Mapping[str, Any] = await scene.people.teacher.get("read the task", path)
        if task["status"] == "COMPLETED":
            return
        waits = task["status"] in ("PENDING", "RUNNING") and time.monotonic() < deadline
        require(
            waits,
            f"export the folder: the workspace-worker should have completed task {task['task_id']} within"
            f" {scene.witness.wait_s:g} s; it is {task['status']}, error: {task['error']}",
        )
        await asyncio.sleep(_PAUSE_S)


def _unpacked(file: bytes) -> Mapping[str, str]:
    try:
        with ZipFile(BytesIO(file)) as archive:
            return {name: archive.read(name).decode() for name in archive.namelist()}
    except (BadZipFile, UnicodeDecodeError) as error:
        raise StepMissed(f"fetch the file: a zip of PGN files in UTF-8 expected, but {error}") from error
