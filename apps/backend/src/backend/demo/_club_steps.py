"""The steps of the chess club's story that change or read one study."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Final
from zipfile import BadZipFile, ZipFile

from shared_types.workspace import WorkspaceEvent

from backend.demo._client import Client
from backend.demo._events import EventLog
from backend.demo._timeline import StepMissed, require

__all__ = ("People", "StudySteps", "missing_games")

_PASSWORD: Final = "Capablanca"  # noqa: S105 - of a story
_GAME_START: Final = re.compile(r'^(?=\[Event ")', re.MULTILINE)
#: Fields of the response that compares two versions of a study, except the list of changed chapters.
_STUDY_CHANGES: Final = ("title_changed", "description_changed", "added", "removed", "renamed", "reordered")
#: Fields of a changed chapter in that response, except the number of added moves.
_CHAPTER_CHANGES: Final = ("headers", "moves_removed_count", "annotated_count", "reordered_count")


@dataclass(frozen=True, kw_only=True, slots=True)
class People:
    """One client for each user of the story."""

    #: Creates all nodes, and is therefore their owner.
    teacher: Client
    #: Gets the role editor of the folder, and thereby of the studies in the folder.
    coach: Client
    #: Gets the role commenter of one study.
    pupil: Client
    #: Has no bearer token; reads with the share token of a link.
    guest: Client


@dataclass(frozen=True, kw_only=True, slots=True)
class StudySteps:
    """The steps of the story that concern one study; each step is a method.

    A method raises StepMissed if a response or an event is not as expected.
    """

    people: People
    log: EventLog
    folder_id: str
    study_id: str
    #: Prints a step: :meth:`Timeline.show`.
    show: Callable[..., None]

    async def run(self, pgn: str) -> None:
        """Run all steps; *pgn* is the text from which the studies of the folder were imported."""
        thread = await self._ask_question()
        await self._share()
        await self._answer_question(thread)
        await self._open_link()
        await self._delete()
        await self._restore(thread)
        await self._change_and_roll_back()
        await self._export(pgn)

    async def _ask_question(self) -> str:
        """Start a discussion about a move, and return the URL path of the discussion."""
        teacher, pupil = self.people.teacher, self.people.pupil
        chapter = await self._chapter()
        move = chapter["moves"][0]
        body = {
            "target": self.study_id,
            "chapter_id": chapter["id"],
            "move_path": move["move_path"],
            "kind": "question",
            "title": "The first move",
            "body": f"Why {move['san']}, @{pupil.name}?",
        }
        thread = (await teacher.send("start a discussion", "POST", "/discussions", 201, body=body)).json()
        mentions = thread["mentions"]
        require(mentions == [pupil.name], f"@{pupil.name} should be mentioned, not {mentions}")
        self.show("teacher", f"ask about {move['san']} in {chapter['title']} → 201", thread["body"])
        await self._show_event(WorkspaceEvent.DISCUSSION_THREAD_CREATED)
        return f"/discussions/{thread['id']}"

    async def _share(self) -> None:
        """Grant the pupil a role in the study, and the coach a role in the folder of the study."""
        pupil = self.people.pupil
        await pupil.send_refused("read before sharing", "GET", self._path, 404, "NODE_NOT_FOUND")
        self.show("pupil", "read the study → 404, as if it did not exist")
        study = await self._grant(self.study_id, pupil, "commenter")
        self.show("teacher", "share the study with the pupil as commenter → 201")
        await self._show_event(WorkspaceEvent.ACL_SHARED)
        self.show("pupil", f"read the study → 200, {len(study['chapters'])} chapters")
        change: dict[str, Any] = {"body": {"title": "Mine"}, "version": study["version"]}
        await pupil.send_refused("rename it", "PATCH", self._path, 403, "ROLE_MISSING", **change)
        self.show("pupil", "rename it → 403, only an editor can")
        await self._grant(self.folder_id, self.people.coach, "editor")
        self.show("teacher", "share the folder with the coach as editor → 201, which includes the study")

    async def _grant(self, node_id: str, person: Client, role: str) -> Mapping[str, Any]:
        """Grant *person* a role in a node, and return the study as *person* reads it afterwards."""
        step = f"share with the {person.name} as {role}"
        body = {"user_id": person.name, "role": role}
        await self.people.teacher.send(step, "POST", f"/share/{node_id}/users", 201, body=body)
        study = await person.get(f"{step}: read the study", self._path)
        require(study["role"] == role, f"{step}: the role in the study is {study['role']}")
        return study

    async def _answer_question(self, thread: str) -> None:
        body = {"body": "It opens lines for the bishop."}
        reply = await self.people.pupil.send("reply", "POST", f"{thread}/replies", 201, body=body)
        self.show("pupil", "reply → 201", body["body"])
        await self._show_event(WorkspaceEvent.DISCUSSION_REPLY_ADDED)
        path = f"/replies/{reply.json()['id']}/reactions/♟"
        await self.people.teacher.send("react", "PUT", path, 204)
        await self.people.coach.send("resolve", "PATCH", thread, 200, body={"resolved": True}, version=1)
        self.show("coach", "resolve the question → 200; the teacher reacts with ♟ → 204")
        await self._show_event(WorkspaceEvent.DISCUSSION_THREAD_RESOLVED)

    async def _open_link(self) -> None:
        """Create a link with a password, and read the study as a user without a bearer token."""
        teacher, guest = self.people.teacher, self.people.guest
        body = {"role": "viewer", "password": _PASSWORD}
        link = await teacher.send("create a link", "POST", f"/share/{self.study_id}/links", 201, body=body)
        self.show("teacher", "create a link with a password → 201")
        path, wrong = f"/links/{link.json()['token']}/open", {"password": "Aljechin"}
        await guest.send_refused("open it", "POST", path, 403, "LINK_PASSWORD_WRONG", body=wrong)
        opened = await guest.send("open it", "POST", path, 200, body={"password": _PASSWORD})
        guest.headers["X-Share-Token"] = opened.json()["share_token"]
        study = await guest.get("read by the link", self._path)
        require(study["role"] == "viewer", f"the role viewer expected, not {study['role']}")
        self.show("guest", "open the link: wrong password → 403, the right one → 200, read the study → 200")

    async def _delete(self) -> None:
        """Move the study to the recycle bin; afterwards only the list of the bin contains the study."""
        people, teacher = self.people, self.people.teacher
        version = await self._version()
        await teacher.send("delete the study", "DELETE", f"/nodes/{self.study_id}", 204, version=version)
        for one in (teacher, people.coach, people.pupil, people.guest):
            await one.send_refused("read a deleted study", "GET", self._path, 404, "NODE_NOT_FOUND")
        self.show("teacher", "delete the study → 204; all users get 404 now")
        await self._show_event(WorkspaceEvent.NODE_SOFT_DELETED)
        items = (await teacher.get("list the bin", "/trash"))["items"]
        found = any(one["id"] == self.study_id for one in items)
        require(found, f"the bin should list the study {self.study_id}; it lists {items}")
        self.show("teacher", "list the bin → 200, the study is there")

    async def _restore(self, thread: str) -> None:
        """Restore the study to its folder, with its discussion."""
        teacher, pupil = self.people.teacher, self.people.pupil
        restored = await teacher.send("restore the study", "POST", f"/nodes/{self.study_id}/restore", 200)
        place = restored.json()["restored_to"]
        require(place == self.folder_id, f"the study should be restored to {self.folder_id}, not to {place}")
        self.show("teacher", "restore it → 200, to its folder")
        await self._show_event(WorkspaceEvent.NODE_RESTORED)
        read = await pupil.get("read the discussion", thread)
        replies = [(reply["author_id"], reply["reactions"]) for reply in read["replies"]]
        resolved = read["resolved_by"] == self.people.coach.name
        unchanged = resolved and replies == [(pupil.name, {"♟": [teacher.name]})]
        require(unchanged, f"the discussion should be as before, not {read}")
        self.show("pupil", "read the discussion again → 200, nothing is missing")

    async def _change_and_roll_back(self) -> None:
        """Save a version, add a move, and roll back to the version."""
        teacher = self.people.teacher
        versions, label = f"{self._path}/versions", {"label": "As it was played"}
        saved = (await teacher.send("save a version", "POST", versions, 201, body=label)).json()["number"]
        self.show("teacher", f"save version {saved} → 201")
        await self._show_event(WorkspaceEvent.STUDY_SNAPSHOT_CREATED)
        chapter = await self._chapter()
        move = {"after": _end_of_main_line(chapter["moves"]), "move": "O-O"}
        path, version = f"{self._path}/chapters/{chapter['id']}/moves", chapter["version"]
        await self.people.coach.send("add a move", "POST", path, 201, body=move, version=version)
        await self._require_more_moves(saved, 1)
        self.show("coach", f"add a move → 201; the difference to version {saved} is that move")
        await self._show_event(WorkspaceEvent.MOVE_ADDED)
        version, target = await self._version(), {"version": saved}
        rolled_back = await teacher.send(
            "go back", "POST", f"{self._path}/rollback", 201, body=target, version=version
        )
        await self._require_more_moves(saved, 0)
        self.show("teacher", f"go back to version {saved} → 201, as version {rolled_back.json()['number']}")
        await self._show_event(WorkspaceEvent.STUDY_ROLLED_BACK)

    async def _require_more_moves(self, version: int, moves: int) -> None:
        """Check that the study has *moves* more moves than its version *version*, and no other difference."""
        path = f"{self._path}/versions/{version}/diff?against=current"
        diff = await self.people.teacher.get("compare", path)
        others = any(diff[name] for name in _STUDY_CHANGES) or any(
            one[name] for one in diff["changed"] for name in _CHAPTER_CHANGES
        )
        found = sum(one["moves_added_count"] for one in diff["changed"])
        require(
            found == moves and not others,
            f"{moves} moves more than in version {version} expected, and no other difference; found {diff}",
        )

    async def _export(self, imported: str) -> None:
        """Export the study as PGN and the folder as a zip; compare the games with the text *imported*."""
        teacher = self.people.teacher
        pgn = (await teacher.send("export the study", "GET", f"{self._path}/export", 200)).text
        self.show("teacher", f"export the study → 200, {len(_games(pgn))} games as PGN")
        body = {"node_id": self.folder_id}
        task_id = (await teacher.send("export the folder", "POST", "/export", 202, body=body)).json()[
            "task_id"
        ]
        self.show("teacher", "export the whole folder → 202, a task")
        await teacher.poll("export the folder", f"/tasks/{task_id}", _is_completed)
        response = await teacher.send("download the file", "GET", f"/tasks/{task_id}/result", 200)
        files = _unpacked(response.content)
        self.show("worker", f"created a zip of {len(files)} files", *files)
        require(pgn in files.values(), "the zip should contain the study as it was exported alone")
        lost = missing_games(imported, "\n".join(files.values()))
        require(not lost, f"every game should be exported as it was imported; not so: {lost[:1]}")
        count = len(_games(imported))
        self.show("teacher", f"compare: the {count} games are those of the file, to the last comment")

    @property
    def _path(self) -> str:
        return f"/studies/{self.study_id}"

    async def _version(self) -> int:
        return (await self.people.teacher.get("read the study", self._path))["version"]

    async def _chapter(self) -> Mapping[str, Any]:
        """Return the first chapter with its moves."""
        teacher = self.people.teacher
        study = await teacher.get("read the study", self._path)
        return await teacher.get("read a chapter", f"{self._path}/chapters/{study['chapters'][0]['id']}")

    async def _show_event(self, event_type: WorkspaceEvent) -> None:
        """Wait until the live stream has sent an event of *event_type*, and print its version."""
        streamed = await self.log.wait_streamed(event_type)
        self.show("stream", f"{streamed['event_type']}, id {streamed['version']}")


def missing_games(imported: str, exported: str) -> Sequence[str]:
    """Return the games that do not occur equally often in two PGN files; line breaks do not matter."""
    before, after = _games(imported), _games(exported)
    return [one for one in (*before, *after) if before.count(one) != after.count(one)]


def _games(pgn: str) -> Sequence[str]:
    """Return each game as one line."""
    return [" ".join(game.split()) for game in _GAME_START.split(pgn) if game.strip()]


def _is_completed(task: Mapping[str, Any]) -> bool:
    ended = task["status"] not in ("PENDING", "RUNNING", "COMPLETED")
    require(not ended, f"task {task['task_id']} should be completed, it is {task['status']}: {task['error']}")
    return task["status"] == "COMPLETED"


def _unpacked(file: bytes) -> Mapping[str, str]:
    try:
        with ZipFile(BytesIO(file)) as archive:
            return {name: archive.read(name).decode() for name in archive.namelist()}
    except (BadZipFile, UnicodeDecodeError) as error:
        raise StepMissed(f"the downloaded file is not a zip of PGN files in UTF-8: {error}") from error


def _end_of_main_line(moves: Sequence[Mapping[str, Any]]) -> str:
    """Return the move path of the last move of the main line; *moves* are in preorder."""
    at, path = -1, ""
    for index, move in enumerate(moves):
        if move["parent"] == at:
            at, path = index, move["move_path"]
    return path
