"""A DELETE repeated with its key gets the same response while the sender has the permission, else 404."""

from tests.fixtures.studies import StudyFactory
from tests.fixtures.studio import Person, Studio


async def twice(person: Person, path: str, *, match: str | None = None) -> list[int]:
    """Send a DELETE twice with one key and return both statuses."""
    headers = {"Idempotency-Key": path}
    return [
        (await person.send("DELETE", path, match=match, headers=dict(headers))).status_code for _ in range(2)
    ]


async def test_delete_is_replayed_for_senders_with_access(studio: Studio, studies: StudyFactory) -> None:
    chapter = await studies.chapter()
    study = chapter.study["id"]
    await studio.teacher.share(chapter.study, "pupil", "commenter")
    link = await studio.teacher.link(chapter.study, "viewer")
    body = {"target": study, "kind": "note", "body": "b"}
    thread = (await studio.teacher.call("POST", "/discussions", body))["id"]
    reply = (await studio.teacher.call("POST", f"/discussions/{thread}/replies", {"body": "b"}))["id"]
    thumb = f"/replies/{reply}/reactions/%F0%9F%91%8D"
    await studio.teacher.call("PUT", thumb)
    assert await twice(studio.teacher, thumb) == [204, 204]
    # The permission cannot be checked any more, because it was stored with the deleted object.
    assert await twice(studio.teacher, f"/replies/{reply}") == [204, 404]
    assert await twice(studio.teacher, f"/discussions/{thread}") == [204, 404]
    assert await twice(studio.teacher, f"/share/links/{link['id']}") == [204, 204]
    assert await twice(studio.pupil, f"/share/{study}/users/pupil") == [204, 404]
    await studio.teacher.share(chapter.study, "anna", "commenter")
    assert await twice(studio.teacher, f"/share/{study}/users/anna") == [204, 204]
    assert await twice(studio.teacher, f"{chapter.path}/moves/e2e4", match="*") == [204, 204]
    assert await twice(studio.teacher, f"/nodes/{study}", match="*") == [204, 204]
    assert await twice(studio.teacher, f"/nodes/{study}/purge") == [204, 204]
