"""Requests and answers of the workspace's discussions; what a body leaves out keeps its value."""

from typing import Annotated, Self
from uuid import UUID

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from shared_types.workspace import ThreadKind
from shared_types.workspace_api import OneLine

__all__ = (
    "CreateReply",
    "CreateThread",
    "EarlierBody",
    "ReplyHistory",
    "ReplyView",
    "ThreadDetail",
    "ThreadPage",
    "ThreadView",
    "UpdateReply",
    "UpdateThread",
)


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("must say something")
    return text


Body = Annotated[str, StringConstraints(min_length=1, max_length=10_000), AfterValidator(_not_blank)]
"""Markdown, as it was written."""
ThreadTitle = Annotated[str, StringConstraints(strip_whitespace=True, max_length=200), OneLine]
MovePath = Annotated[str, StringConstraints(min_length=4, max_length=10_000)]
"""UCI moves from the start of the chapter, joined by dots."""


class _Request(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class CreateThread(_Request):
    """``POST /discussions``."""

    #: The node.
    target: UUID
    #: One of its chapters; null for the node as a whole.
    chapter_id: UUID | None = None
    #: A move of the chapter; null for the chapter as a whole.
    move_path: MovePath | None = None
    kind: ThreadKind
    title: ThreadTitle = ""
    body: Body

    @model_validator(mode="after")
    def _a_move_is_in_a_chapter(self) -> Self:
        if self.move_path is not None and self.chapter_id is None:
            raise ValueError("move_path needs the chapter_id of its chapter")
        return self


class UpdateThread(_Request):
    """``PATCH /discussions/{id}``; the first three are the author's, the others an editor's."""

    kind: ThreadKind | None = None
    title: ThreadTitle | None = None
    body: Body | None = None
    resolved: bool | None = None
    pinned: bool | None = None


class CreateReply(_Request):
    """``POST /discussions/{id}/replies``."""

    body: Body
    #: The reply that is answered; null for the thread itself.
    parent_id: UUID | None = None


class UpdateReply(_Request):
    """``PATCH /replies/{id}``."""

    body: Body


class ThreadView(BaseModel):
    """A thread as it is shown in a list."""

    id: UUID
    #: The node.
    target: UUID
    chapter_id: UUID | None
    move_path: str | None
    kind: ThreadKind
    title: str
    body: str
    #: Users whom the body names; whether they may read it is not said.
    mentions: list[str]
    author_id: str
    #: Null: open.
    resolved_at: AwareDatetime | None
    resolved_by: str | None
    pinned: bool
    #: What ``If-Match`` compares; also the ETag.
    version: int
    created_at: AwareDatetime
    changed_at: AwareDatetime
    #: Deleted ones left out.
    replies_count: Annotated[int, Field(ge=0)]


class ThreadPage(BaseModel):
    """A page of threads."""

    items: list[ThreadView]
    #: Null on the last page.
    next_cursor: str | None = None


class ReplyView(BaseModel):
    """A reply with the replies to it, oldest first."""

    id: UUID
    thread_id: UUID
    parent_id: UUID | None
    #: 1 for an answer to the thread itself, 5 at most.
    depth: int
    #: Empty for a deleted reply, which is shown as long as it has answers.
    body: str
    mentions: list[str]
    #: Null for a deleted reply.
    author_id: str | None
    #: Who wrote the present body, where it is not the first one.
    edited_by: str | None
    #: Emoji to the people who reacted with it, in the order in which they did.
    reactions: dict[str, list[str]]
    #: What ``If-Match`` compares; also the ETag.
    version: int
    created_at: AwareDatetime
    changed_at: AwareDatetime
    deleted_at: AwareDatetime | None
    replies: list["ReplyView"] = []


class ThreadDetail(ThreadView):
    """A thread with its replies."""

    replies: list[ReplyView]


class EarlierBody(BaseModel):
    """What a reply said until it was edited."""

    body: str
    written_by: str
    written_at: AwareDatetime


class ReplyHistory(BaseModel):
    """Earlier bodies of a reply, oldest first; the present one is not among them."""

    items: list[EarlierBody]
