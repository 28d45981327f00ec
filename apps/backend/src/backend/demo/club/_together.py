"""People talk about the study, and are let in one by one."""

from collections.abc import Mapping
from typing import Any, Final

from shared_types.workspace import WorkspaceEvent

from backend.demo._expect import require
from backend.demo.club._member import Member
from backend.demo.club._scene import Scene

__all__ = ("answer", "ask", "open_link", "share")

_PASSWORD: Final = "Capablanca"  # noqa: S105 - of a story


async def ask(scene: Scene) -> str:
    """The teacher asks about a move: the path of the thread.

    Raises:
        StepMissed: it did not happen; so below.
    """
    teacher, pupil = scene.people.teacher, scene.people.pupil
    chapter = await scene.chapter()
    move = chapter["moves"][0]
    body = {
        "target": scene.study_id,
        "chapter_id": chapter["id"],
        "move_path": move["move_path"],
        "kind": "question",
        "title": "The first move",
        "body": f"Why {move['san']}, @{pupil.name}?",
    }
    thread = (await teacher.ask("begin a discussion", "POST", "/discussions", 201, body)).json()
    require(
        thread["mentions"] == [pupil.name], f"@{pupil.name} should be mentioned, not {thread['mentions']}"
    )
    scene.say("teacher", f"ask about {move['san']} in {chapter['title']} → 201", thread["body"])
    await scene.told(WorkspaceEvent.DISCUSSION_THREAD_CREATED)
    return f"/discussions/{thread['id']}"


async def share(scene: Scene) -> None:
    """The pupil gets a role of the study, the coach one of the folder, which holds for what is in it."""
    pupil = scene.people.pupil
    await pupil.refused("read what is not shared", "GET", scene.path, 404, "NODE_NOT_FOUND")
    scene.say("pupil", "read the study → 404, as if it did not exist")
    study = await _grant(scene, scene.study_id, pupil, "commenter")
    scene.say("teacher", "share the study with the pupil as commenter → 201")
    await scene.told(WorkspaceEvent.ACL_SHARED)
    scene.say("pupil", f"read the study → 200, {len(study['chapters'])} chapters")
    body, match = {"title": "Mine"}, study["version"]
    await pupil.refused("rename it", "PATCH", scene.path, 403, "ROLE_MISSING", body, match=match)
    scene.say("pupil", "rename it → 403, that takes an editor")
    await _grant(scene, scene.folder_id, scene.people.coach, "editor")
    scene.say("teacher", "share the folder with the coach as editor → 201, which holds for the study too")


async def _grant(scene: Scene, node_id: str, member: Member, role: str) -> Mapping[str, Any]:
    """The study as *member* reads it from now on."""
    what = f"share with the {member.name} as {role}"
    body = {"user_id": member.name, "role": role}
    await scene.people.teacher.ask(what, "POST", f"/share/{node_id}/users", 201, body)
    study = await member.get(f"{what}: read the study", scene.path)
    require(study["role"] == role, f"{what}: the role in the study is {study['role']}")
    return study


async def answer(scene: Scene, thread: str) -> None:
    """The pupil answers, and the question is settled."""
    body = {"body": "It opens lines for the bishop."}
    reply = await scene.people.pupil.ask("reply", "POST", f"{thread}/replies", 201, body)
    scene.say("pupil", "reply → 201", body["body"])
    await scene.told(WorkspaceEvent.DISCUSSION_REPLY_ADDED)
    path = f"/replies/{reply.json()['id']}/reactions/♟"
    await scene.people.teacher.ask("react", "PUT", path, 204)
    await scene.people.coach.ask("resolve", "PATCH", thread, 200, {"resolved": True}, match=1)
    scene.say("coach", "resolve the question → 200; the teacher reacts with ♟ → 204")
    await scene.told(WorkspaceEvent.DISCUSSION_THREAD_RESOLVED)


async def open_link(scene: Scene) -> None:
    """Somebody without a name reads the study by a link with a password."""
    teacher, guest = scene.people.teacher, scene.people.guest
    body = {"role": "viewer", "password": _PASSWORD}
    link = await teacher.ask("make a link", "POST", f"/share/{scene.study_id}/links", 201, body)
    scene.say("teacher", "make a link with a password → 201")
    path = f"/links/{link.json()['token']}/open"
    await guest.refused("open it", "POST", path, 403, "LINK_PASSWORD_WRONG", {"password": "Aljechin"})
    opened = await guest.ask("open it", "POST", path, 200, {"password": _PASSWORD})
    guest.carry(opened.json()["share_token"])
    study = await guest.get("read by the link", scene.path)
    require(study["role"] == "viewer", f"the role viewer expected, not {study['role']}")
    scene.say("guest", "open the link: wrong password → 403, the right one → 200, read the study → 200")
