"""Request and response bodies of sharing: grants, links, and nodes shared with a user."""

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
        raise ValueError("must have only printable characters, as `sub` of a token has")
    if text in {".", ".."}:
        # Clients remove dot segments from paths (RFC 3986, section 5.2.4), so no URL could address the grant.
        raise ValueError('must not be "." or "..", which cannot be part of a path')
    return text


#: The ``sub`` of a user's token.
UserId = Annotated[str, StringConstraints(min_length=1, max_length=255), AfterValidator(_printable)]
#: Without OWNER: a tree has exactly one owner.
GrantedRole = Literal[Role.VIEWER, Role.COMMENTER, Role.EDITOR, Role.ADMIN]
#: Without ADMIN: a link never gives access to members and settings.
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
    #: Null: valid until revoked; else a future time, at most ten years ahead.
    expires_at: AwareDatetime | None = None
    #: Null: the link can be opened without a password.
    password: Password | None = None


class OpenLink(_Request):
    """``POST /links/{token}/open``."""

    password: Password | None = None


class GrantView(BaseModel):
    """The role of a user on a node and below it."""

    #: The node of the grant, which may be an ancestor; null if the sender may not read that ancestor.
    node_id: UUID | None
    user_id: str
    role: Role
    granted_by: str
    created_at: AwareDatetime
    changed_at: AwareDatetime


class LinkView(BaseModel):
    """A link without its token."""

    id: UUID
    #: The node of the link, which may be an ancestor; null if the sender may not read that ancestor.
    node_id: UUID | None
    role: Role
    has_password: bool
    expires_at: AwareDatetime | None
    created_by: str
    created_at: AwareDatetime


class LinkMade(LinkView):
    """A new link with its token, which is shown only once."""

    token: str


class ShareView(BaseModel):
    """The owner, grants and links of a node, including inherited ones."""

    owner_id: str
    visibility: Visibility
    #: A page of grants, one for each user: the nearest; ordered by user.
    grants: list[GrantView]
    #: All links of the node and its ancestors, oldest first; on the first page only.
    links: list[LinkView]
    #: Null on the last page.
    next_cursor: str | None = None


class LinkSeen(BaseModel):
    """The node of a link that is not opened yet."""

    title: str
    kind: NodeKind
    role: Role
    needs_password: bool
    expires_at: AwareDatetime | None


class LinkOpened(BaseModel):
    """A link that was opened."""

    #: The value for the header ``X-Share-Token``; gives the present rights of the link.
    share_token: str
    #: When the share token expires; then open the link again.
    expires_at: AwareDatetime
    node_id: UUID
    role: Role


class SharedNode(NodeView):
    """A node that another user shared with the sender."""

    role: Role
    shared_by: str
    shared_at: AwareDatetime


class SharedPage(BaseModel):
    """A page of shared nodes, newest first."""

    items: list[SharedNode]
    #: Null on the last page.
    next_cursor: str | None = None
