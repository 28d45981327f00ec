"""Define request and response bodies of discussions; fields that a request omits keep their value."""

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
        raise ValueError("must not be blank; write a text")
    return text


Body = Annotated[str, StringConstraints(min_length=1, max_length=10_000), AfterValidator(_not_blank)]
"""Markdown, stored unchanged."""
ThreadTitle = Annotated[str, StringConstraints(strip_whitespace=True, max_length=200), OneLine]
MovePath = Annotated[str, StringConstraints(min_length=4, max_length=10_000)]
"""UCI moves from the start of the chapter, joined by dots: ``e2e4.e7e5``."""


class _Request(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class CreateThread(_Request):
    """Body of ``POST /discussions``."""

    #: Id of the node to discuss.
    target: UUID
    #: Id of a chapter of the node; null for the whole node.
    chapter_id: UUID | None = None
    #: Path of a move of the chapter; null for the whole chapter.
    move_path: MovePath | None = None
    kind: ThreadKind
    title: ThreadTitle = ""
    body: Body

    @model_validator(mode="after")
    def _a_move_is_in_a_chapter(self) -> Self:
        if self.move_path is not None and self.chapter_id is None:
            raise ValueError("move_path needs a chapter_id; add the id of the move's chapter")
        return self


class UpdateThread(_Request):
    """Body of ``PATCH /discussions/{id}``.

    The author may change ``kind``, ``title`` and ``body``. An editor of the node may change ``resolved`` and
    ``pinned``.
    """

    kind: ThreadKind | None = None
    title: ThreadTitle | None = None
    body: Body | None = None
    resolved: bool | None = None
    pinned: bool | None = None


class CreateReply(_Request):
    """Body of ``POST /discussions/{id}/replies``."""

    body: Body
    #: Id of the reply to answer; null to answer the thread itself.
    parent_id: UUID | None = None


class UpdateReply(_Request):
    """Body of ``PATCH /replies/{id}``."""

    body: Body


class ThreadView(BaseModel):
    """A thread in a list."""

    id: UUID
    #: Id of the node.
    target: UUID
    chapter_id: UUID | None
    move_path: str | None
    kind: ThreadKind
    title: str
    body: str
    #: Ids of the users that the body mentions; some of them may not be allowed to read the thread.
    mentions: list[str]
    author_id: str
    #: Null while the thread is open.
    resolved_at: AwareDatetime | None
    resolved_by: str | None
    pinned: bool
    #: Compared with ``If-Match``; also the ETag.
    version: int
    created_at: AwareDatetime
    changed_at: AwareDatetime
    #: Number of replies that are not deleted.
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
    #: 1 for a reply to the thread itself, at most 5.
    depth: int
    #: Empty for a deleted reply, which is listed as long as there are replies to it.
    body: str
    mentions: list[str]
    #: Null for a deleted reply.
    author_id: str | None
    #: The user that changed the body last; null if the body was never changed.
    edited_by: str | None
    #: For each emoji the users that reacted with it, in the order of their reactions.
    reactions: dict[str, list[str]]
    #: Compared with ``If-Match``; also the ETag.
    version: int
    created_at: AwareDatetime
    changed_at: AwareDatetime
    deleted_at: AwareDatetime | None
    replies: list["ReplyView"] = []


class ThreadDetail(ThreadView):
    """A thread with its replies."""

    replies: list[ReplyView]


class EarlierBody(BaseModel):
    """An earlier body of a reply."""

    body: str
    written_by: str
    written_at: AwareDatetime


class ReplyHistory(BaseModel):
    """Earlier bodies of a reply, oldest first, without the current one."""

    items: list[EarlierBody]
