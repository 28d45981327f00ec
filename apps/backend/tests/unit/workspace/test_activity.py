"""The parts of events that readers may see."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from backend.workspace.access import Ancestor, access_of
from backend.workspace.activity._activity import activity_entry, redact_for_reader
from relaybox.events import RecordedEvent
from shared_types.events import EventTarget
from shared_types.workspace import NodeKind, Role, Visibility, WorkspaceEvent

NODE = uuid4()
#: Fields of events that readers must not see; a route with its own check of permissions returns them.
PRIVATE = {
    "body": "private",
    "mentions": ["private"],
    "owner_id": "private",
    "reason": "private",
    "path": ["private"],
    "former_parent_id": "private",
    "headers": {"White": "private"},
    "moves": {"moves": ["private"]},
    "skipped": ["private"],
    "title": "private",
    "description": "private",
    "layout": {"group": "private"},
    "annotation": {"text": "private"},
    "annotations": {"e2e4": {"text": "private"}},
}
SHARING = {"user_id": "pupil", "role": "viewer", "has_password": False, "expires_at": None}
FACTS = {
    "kind": "question",
    "chapter_id": "c",
    "move_path": "e2e4.e7e5",
    "uci": "e7e5",
    "san": "e5",
    "number": 3,
    "restored_from": 1,
    "emoji": "👍",
    "thread_id": "t",
    "reply_id": "r",
    "link_id": "l",
}


def event(type_: WorkspaceEvent, **payload: Any) -> RecordedEvent:
    return RecordedEvent(
        event_id=uuid4(),
        correlation_id=uuid4(),
        causation_id=None,
        type=type_,
        event_version=1,
        aggregate_type="WORKSPACE_NODE",
        aggregate_id=str(NODE),
        version=7,
        payload=payload,
        metadata={"user_id": "anna"},
        created_at=datetime.now(UTC),
    )


def access(role: Role) -> Any:
    one = Ancestor(
        id=NODE,
        kind=NodeKind.STUDY,
        parent_id=None,
        owner_id="owner",
        title="Study",
        visibility=Visibility.SHARED,
        trashed=False,
        trashed_by=None,
        granted=role,
        linked=None,
    )
    return access_of([one], "anna")


@pytest.mark.parametrize("type_", WorkspaceEvent)
def test_readers_get_all_fields_except_texts_of_users(type_: WorkspaceEvent) -> None:
    one = event(type_, **FACTS, **SHARING, **PRIVATE)
    for role in (Role.VIEWER, Role.ADMIN):
        assert "private" not in str(redact_for_reader(one, access(role)))
        told = activity_entry(one, access(role))
        assert (told.version, told.actor, told.at) == (7, "anna", one.created_at)
        assert told.summary
        assert "private" not in str(told)


@pytest.mark.parametrize("type_", [one for one in WorkspaceEvent if one.startswith("acl.")])
def test_only_admins_get_the_users_of_grants(type_: WorkspaceEvent) -> None:
    one = event(type_, **SHARING)
    assert redact_for_reader(one, access(Role.EDITOR)).payload == {}
    assert activity_entry(one, access(Role.EDITOR)).target.type is EventTarget.NODE
    assert redact_for_reader(one, access(Role.ADMIN)).payload == SHARING
    assert activity_entry(one, access(Role.ADMIN)).target.id == "pupil"


@pytest.mark.parametrize(
    ("type_", "payload", "target", "summary"),
    [
        (WorkspaceEvent.NODE_CREATED, {"kind": "folder"}, ("NODE", str(NODE)), "made this folder"),
        (WorkspaceEvent.STUDY_SNAPSHOT_CREATED, {"number": 2}, ("STUDY", str(NODE)), "kept version 2"),
        (
            WorkspaceEvent.MOVE_DELETED,
            {"chapter_id": "c", "move_path": "e2e4.e7e5"},
            ("CHAPTER", "c"),
            "removed the move e7e5",
        ),
        (
            WorkspaceEvent.DISCUSSION_THREAD_CREATED,
            {"thread_id": "t", "chapter_id": "c", "kind": "note"},
            ("DISCUSSION", "t"),
            "began a note",
        ),
        (
            WorkspaceEvent.DISCUSSION_REACTION_ADDED,
            {"thread_id": "t", "reply_id": "r", "emoji": "♟"},
            ("DISCUSSION", "r"),
            "reacted with ♟",
        ),
        (
            WorkspaceEvent.CHAPTER_CREATED,
            {"chapter_id": "c", "title": "{x}"},
            ("CHAPTER", "c"),
            "added a chapter",
        ),
        (
            WorkspaceEvent.NODE_UPDATED,
            {"visibility": None, "title": "{x}"},
            ("NODE", str(NODE)),
            "changed title and visibility",
        ),
    ],
)
def test_activity_entry_has_the_finest_target_and_a_summary(
    type_: WorkspaceEvent, payload: dict[str, Any], target: tuple[str, str], summary: str
) -> None:
    told = activity_entry(event(type_, **payload), access(Role.VIEWER))
    assert ((told.target.type, told.target.id), told.summary) == (target, summary)


def test_entry_of_a_change_names_the_fields_without_values() -> None:
    one = event(WorkspaceEvent.NODE_UPDATED, title="new", description="", visibility="public")
    expected = {"visibility": "public", "changed": ["title", "description", "visibility"]}
    assert redact_for_reader(one, access(Role.VIEWER)).payload == expected
    one = event(WorkspaceEvent.DISCUSSION_THREAD_UPDATED, thread_id="t", body="new", mentions=[])
    assert redact_for_reader(one, access(Role.VIEWER)).payload == {"thread_id": "t", "changed": ["body"]}


@pytest.mark.parametrize("type_", WorkspaceEvent)
def test_activity_entry_of_an_erased_event_is_marked(type_: WorkspaceEvent) -> None:
    told = activity_entry(event(type_, erased=True), access(Role.VIEWER))
    assert (told.erased, told.summary) == (True, "made a change that was erased")


@pytest.mark.parametrize(
    "type_", [WorkspaceEvent.NODE_MOVED, WorkspaceEvent.STUDY_CREATED, WorkspaceEvent.NODE_RESTORED]
)
def test_only_readers_of_the_parent_get_its_id_in_events(type_: WorkspaceEvent) -> None:
    parent, former = uuid4(), uuid4()
    node = replace(access(Role.VIEWER).node, parent_id=parent)
    above = replace(node, id=parent, parent_id=None, granted=None)
    guest, reader = (
        access_of((node, above), "guest"),
        access_of((node, replace(above, granted=Role.VIEWER)), "g"),
    )
    owner = access_of((node, above), "owner")
    for requester, expected in (guest, None), (reader, str(parent)), (owner, str(parent)):
        assert (
            redact_for_reader(event(type_, parent_id=str(parent)), requester).payload["parent_id"] == expected
        )
    for requester, expected in (guest, None), (reader, None), (owner, str(former)):
        assert (
            redact_for_reader(event(type_, parent_id=str(former)), requester).payload["parent_id"] == expected
        )
    for requester in guest, reader, owner:
        assert redact_for_reader(event(type_, parent_id=None), requester).payload["parent_id"] is None
