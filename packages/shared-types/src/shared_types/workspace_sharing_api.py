"""Requests and answers of sharing: grants, links, and what somebody was given."""

from typing import Annotated, Literal
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, SecretStr, StringConstraints

from shared_types.workspace import NodeKind, Role, Visibility
from shared_types.workspace_api import NodeView

__all__ = (
    "ChangeRole",
    "CreateLink",
    "GrantView",
    "LinkMade",
    "LinkOpened",
    "LinkSeen",
    "LinkView",
    "OpenLink",
    "ShareNode",
    "ShareView",
    "SharedNode",
    "SharedPage",
)


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must be printable, as the subject of a token is")
    if text in {".", ".."}:
        # RFC 3986, section 5.2.4: clients take these out of a path, so the grant could not be named again.
        raise ValueError("must not be a dot segment, which no path can name")
    return text


#: The ``sub`` of somebody's token.
UserId = Annotated[str, StringConstraints(min_length=1, max_length=255), AfterValidator(_printable)]
#: Nobody is made an owner: a tree has one.
GrantedRole = Literal[Role.VIEWER, Role.COMMENTER, Role.EDITOR, Role.ADMIN]
#: Members and settings are no business of whoever has a link.
LinkedRole = Literal[Role.VIEWER, Role.COMMENTER, Role.EDITOR]
Password = Annotated[SecretStr, Field(min_length=1, max_length=200)]


class _Request(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class ShareNode(_Request):
    """``POST /share/{node_id}/users``."""

    user_id: UserId
    role: GrantedRole


class ChangeRole(_Request):
    """``PUT /share/{node_id}/users/{user_id}``."""

    role: GrantedRole


class CreateLink(_Request):
    """``POST /share/{node_id}/links``."""

    role: LinkedRole
    #: Null: until it is revoked; else ahead, by ten years at the most.
    expires_at: AwareDatetime | None = None
    #: Null: whoever has the link may open it.
    password: Password | None = None


class OpenLink(_Request):
    """``POST /links/{token}/open``."""

    password: Password | None = None


class GrantView(BaseModel):
    """What somebody may do on a node and below it."""

    #: Where it was granted: the requested node or an ancestor; null for an ancestor that may not be read.
    node_id: UUID | None
    user_id: str
    role: Role
    granted_by: str
    created_at: AwareDatetime
    changed_at: AwareDatetime


class LinkView(BaseModel):
    """A link, without what opens it."""

    id: UUID
    #: Where it leads: the requested node or an ancestor; null for an ancestor that may not be read.
    node_id: UUID | None
    role: Role
    has_password: bool
    expires_at: AwareDatetime | None
    created_by: str
    created_at: AwareDatetime


class LinkMade(LinkView):
    """A new link; its token is shown here and never again."""

    token: str


class ShareView(BaseModel):
    """Who may do what on a node, there and by inheritance."""

    owner_id: str
    visibility: Visibility
    #: One for each user, the nearest: a page of them, by user.
    grants: list[GrantView]
    #: All of the node and its ancestors, oldest first; on the first page.
    links: list[LinkView]
    #: Null on the last page.
    next_cursor: str | None = None


class LinkSeen(BaseModel):
    """Where a link leads, before it is opened."""

    title: str
    kind: NodeKind
    role: Role
    needs_password: bool
    expires_at: AwareDatetime | None


class LinkOpened(BaseModel):
    """A link that was opened."""

    #: For the header ``X-Share-Token``; it is worth what the link is at the time.
    share_token: str
    #: Of the share token; then the link is opened again.
    expires_at: AwareDatetime
    node_id: UUID
    role: Role


class SharedNode(NodeView):
    """A node that somebody shared with who asks."""

    role: Role
    shared_by: str
    shared_at: AwareDatetime


class SharedPage(BaseModel):
    """A page of what was shared, the newest first."""

    items: list[SharedNode]
    #: Null on the last page.
    next_cursor: str | None = None
