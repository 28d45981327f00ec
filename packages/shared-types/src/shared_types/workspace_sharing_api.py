"""Define request and response bodies of sharing: grants, links, and nodes shared with a user."""

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
        raise ValueError("must contain only printable characters; send the `sub` of the user's token")
    if text in {".", ".."}:
        # Clients remove dot segments from paths (RFC 3986, section 5.2.4), so no URL could address the grant.
        raise ValueError('must not be "." or "..", which cannot be part of a path')
    return text


#: The ``sub`` of a user's token.
UserId = Annotated[str, StringConstraints(min_length=1, max_length=255), AfterValidator(_printable)]
#: Roles that a user may get by a grant: not OWNER, because a tree has exactly one owner.
GrantedRole = Literal[Role.VIEWER, Role.COMMENTER, Role.EDITOR, Role.ADMIN]
#: Roles that a link may give: not ADMIN, because links give no access to members and settings.
LinkedRole = Literal[Role.VIEWER, Role.COMMENTER, Role.EDITOR]
Password = Annotated[SecretStr, Field(min_length=1, max_length=200)]


class _Request(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class ShareNode(_Request):
    """Body of ``POST /share/{node_id}/users``."""

    user_id: UserId
    role: GrantedRole


class ChangeRole(_Request):
    """Body of ``PUT /share/{node_id}/users/{user_id}``."""

    role: GrantedRole


class CreateLink(_Request):
    """Body of ``POST /share/{node_id}/links``."""

    role: LinkedRole
    #: A future time, at most ten years ahead; null: the link is valid until it is revoked.
    expires_at: AwareDatetime | None = None
    #: Null: the link can be opened without a password.
    password: Password | None = None


class OpenLink(_Request):
    """Body of ``POST /links/{token}/open``."""

    #: Null for a link without a password.
    password: Password | None = None


class GrantView(BaseModel):
    """The role of a user on a node and below it."""

    #: Id of the node that has the grant: the requested node or one of its ancestors. Null if this is an
    #: ancestor that the sender may not read.
    node_id: UUID | None
    user_id: str
    role: Role
    granted_by: str
    created_at: AwareDatetime
    changed_at: AwareDatetime


class LinkView(BaseModel):
    """A link without its token."""

    id: UUID
    #: Id of the node that has the link: the requested node or one of its ancestors. Null if this is an
    #: ancestor that the sender may not read.
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
    #: A page of grants, ordered by user: for each user the grant on the node or on its nearest ancestor.
    grants: list[GrantView]
    #: All links of the node and its ancestors, oldest first; on the first page only.
    links: list[LinkView]
    #: Null on the last page.
    next_cursor: str | None = None


class LinkSeen(BaseModel):
    """The node of a link, as shown before the link is opened."""

    title: str
    kind: NodeKind
    role: Role
    needs_password: bool
    expires_at: AwareDatetime | None


class LinkOpened(BaseModel):
    """A link that was opened."""

    #: Value for the header ``X-Share-Token``, which gives the rights that the link has at the time of a
    #: request.
    share_token: str
    #: Time at which the share token expires; after that, open the link again.
    expires_at: AwareDatetime
    node_id: UUID
    role: Role


class SharedNode(NodeView):
    """A node that another user shared with the sender."""

    role: Role
    shared_by: str
    shared_at: AwareDatetime


class SharedPage(BaseModel):
    """A page of shared nodes, the most recently shared first."""

    items: list[SharedNode]
    #: Null on the last page.
    next_cursor: str | None = None
