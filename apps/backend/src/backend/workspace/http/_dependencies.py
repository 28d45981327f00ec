"""Dependencies of the routes: the requester, access to a node, and the command in its unit of work.

The routers of a workspace are module-level objects without arguments.
:func:`backend.workspace.routes.workspace_router` includes them in one router of the application, whose first
dependency gives each request its `RouteDependencies`.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import Depends, Header, Request
from fastapi.security import APIKeyHeader
from relaybox.commands import InboxCommand
from relaybox.http import (
    AUTH_ERRORS,
    BEARER_SCHEME,
    BODY_ERRORS,
    DATABASE_ERRORS,
    KEY_ERRORS,
    Backbone,
    BadHeader,
    Principal,
    TokenMissing,
    UnitOfWork,
    bearer,
    caller_of,
    has_stored_response,
    unit_of_work,
)
from shared_types.workspace import NodeKind, Role

from backend.settings import WorkspaceSettings
from backend.workspace.access import Access, access_of
from backend.workspace.core import ACCESS_SQL, CommandTransaction, IfMatch, ancestors_from_rows
from backend.workspace.errors import (
    IfMatchMalformed,
    IfMatchMissing,
    IfMatchWeak,
    NodeNotFound,
    ResourceNotFound,
    RoleMissing,
    ShareTokenInvalid,
    VersionStale,
    as_resource_not_found,
)
from backend.workspace.http._messages import path_id
from backend.workspace.http._share_tokens import SHARE_HEADER, ShareTokens

__all__ = (
    "MATCH_ERRORS",
    "READ_ERRORS",
    "RESOURCE_READ_ERRORS",
    "RESOURCE_WRITE_ERRORS",
    "WRITE_ERRORS",
    "CurrentRequester",
    "Dependencies",
    "Match",
    "Requester",
    "RouteDependencies",
    "authenticated",
    "begin_authorized_command",
    "begin_command",
    "count_command_errors",
    "dependencies_of",
    "find_node_by",
    "known_node_id",
    "node_access",
)

READ_ERRORS: Final = (*AUTH_ERRORS, ShareTokenInvalid, NodeNotFound, RoleMissing, *DATABASE_ERRORS)
MATCH_ERRORS: Final = (IfMatchMissing, IfMatchMalformed, IfMatchWeak, VersionStale)
WRITE_ERRORS: Final = (*READ_ERRORS, *BODY_ERRORS, BadHeader, *KEY_ERRORS)
RESOURCE_READ_ERRORS: Final = tuple(ResourceNotFound if one is NodeNotFound else one for one in READ_ERRORS)
RESOURCE_WRITE_ERRORS: Final = tuple(ResourceNotFound if one is NodeNotFound else one for one in WRITE_ERRORS)
_SHARE_SCHEME: Final = APIKeyHeader(
    name=SHARE_HEADER,
    auto_error=False,
    scheme_name="share",
    description="The share token that POST /links/{token}/open returns. Alone it gives read access; to"
    " write, send a bearer token too.",
)

OptionalNodeFinder = Callable[[Request], Awaitable[UUID | None]]
"""A function that returns the id of the node of a request; None if the request has no node."""
NodeFinder = Callable[[Request], Awaitable[UUID]]
"""A function that returns the id of the node of a request; raises NodeNotFound if there is no such node."""
BeforeTransaction = Callable[[Request], Awaitable[None]]
"""Slow work for a request that is done before its transaction begins."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Requester:
    """The sender of a request."""

    #: The user id; None without a bearer token.
    subject: str | None
    #: The share link of the request's share token; None if there is none.
    link_id: UUID | None = None

    @property
    def is_anonymous(self) -> bool:
        """Return whether the request has neither a bearer token nor a share token."""
        return self.subject is None and self.link_id is None


class RouteDependencies:
    """The objects that all routes of one application share."""

    def __init__(self, backbone: Backbone, share_tokens: ShareTokens, settings: WorkspaceSettings) -> None:
        self.backbone = backbone
        self.database = backbone.database
        self.share_tokens = share_tokens
        self.settings = settings
        self.authenticate = bearer(backbone.verifier)

    async def provide(self, request: Request) -> None:
        """Store these objects in the state of *request*; the application's router depends on this first."""
        request.state.dependencies = self

    async def access(self, node_id: UUID, requester: Requester) -> Access:
        """Return the access of *requester* to a node, live or in the bin.

        Raises:
            TokenMissing: The requester is anonymous, and the node does not exist, is in the bin, or is not
                public. All cases have the same response, which therefore does not reveal whether the node
                exists.
            NodeNotFound: The node does not exist, and the requester is not anonymous.
        """
        async with self.database.connection() as connection:
            rows = await connection.fetch(
                ACCESS_SQL["ancestors"], node_id, requester.subject, requester.link_id
            )
        if not rows and requester.is_anonymous:
            raise TokenMissing
        access = access_of(ancestors_from_rows(rows), requester.subject)
        # Also for a public node in the bin: another response would reveal that the node exists.
        if requester.is_anonymous and (access.role is None or access.trashed is not None):
            raise TokenMissing
        return access

    async def link_id(self, request: Request) -> UUID | None:
        """Return the id of the link in the request's share token; None without a share token.

        Raises:
            ShareTokenInvalid: The token is not valid, or has expired.
        """
        share_token = request.headers.get(SHARE_HEADER)
        return await self.share_tokens.read_link_id(share_token) if share_token else None

    async def has_stored_response(self, request: Request) -> bool:
        """Return whether a response is stored under the idempotency key of *request*.

        Call this after authentication: :func:`begin_authorized_command` must have stored the principal in the
        request.
        """
        return await has_stored_response(request, self.database, request.state.principal)

    def begin_command(self, request: Request, unit: UnitOfWork[Principal]) -> CommandTransaction:
        """Return the transaction of the command that *request* sends, in the transaction of *unit*.

        :func:`begin_authorized_command` must have stored the share link in the request.
        """

        def count(command: InboxCommand) -> None:
            assert command.command_type == request.state.command_type, "the route declares another command"
            self.backbone.count_after_commit(unit.db, command.command_type, command.status.value)

        return CommandTransaction(
            unit.db,
            caller_of(request, unit.principal, self.backbone.service),
            key=unit.key,
            link_id=request.state.link_id,
            on_response_nodes=unit.about,
            on_recorded=count,
        )


def dependencies_of(request: Request) -> RouteDependencies:
    """Return the dependencies that :meth:`RouteDependencies.provide` stored in the state of *request*."""
    dependencies: RouteDependencies = request.state.dependencies
    return dependencies


async def _dependencies(request: Request) -> RouteDependencies:
    # Async although it waits for nothing: FastAPI runs other functions in a thread.
    return dependencies_of(request)


Dependencies = Annotated[RouteDependencies, Depends(_dependencies)]


async def authenticated(
    request: Request,
    # Only documents the scheme in OpenAPI.
    _bearer: Annotated[Any, Depends(BEARER_SCHEME)],
) -> Principal:
    """Return the sender of a request with a bearer token; a FastAPI dependency.

    Raises:
        TokenMissing, TokenInvalid, TokenExpired: The request has no valid bearer token.
    """
    return await dependencies_of(request).authenticate(request)


async def _requester(
    request: Request,
    # Only document the schemes in OpenAPI: a request may have both tokens, one or none.
    _bearer: Annotated[Any, Depends(BEARER_SCHEME)],
    _share_token: Annotated[str | None, Depends(_SHARE_SCHEME)],
) -> Requester:
    dependencies = dependencies_of(request)
    link_id = await dependencies.link_id(request)
    if "authorization" not in request.headers:
        return Requester(subject=None, link_id=link_id)
    principal = await dependencies.authenticate(request)
    return Requester(subject=principal.subject, link_id=link_id)


CurrentRequester = Annotated[Requester, Depends(_requester)]
"""A dependency: the requester of a route that needs no token. A token in the request must be valid."""


async def _if_match(
    request: Request,
    # Only documents the header in OpenAPI: FastAPI would read only one of several header lines.
    _documented: Annotated[
        str | None, Header(alias="If-Match", description="The ETag of the version that you have read")
    ] = None,
) -> IfMatch:
    lines = request.headers.getlist("if-match")
    # Several lines are one list (RFC 9110, section 5.3).
    return IfMatch.parse(", ".join(lines) if lines else None)


Match = Annotated[IfMatch, Depends(_if_match)]
"""A dependency: the versions that the client allows a write to change.

A route declares this parameter after that of the command: a replay of a stored response needs no
``If-Match``.
"""


def find_node_by(query: str, name: str) -> NodeFinder:
    """Return a function that finds the node of a request's resource, such as a thread.

    Args:
        query: SQL that returns the node's id as ``node_id`` for the resource $1. If the query returns no row,
            the function raises NodeNotFound.
        name: The path parameter with the id of the resource.
    """

    async def find(request: Request) -> UUID:
        async with dependencies_of(request).database.connection() as connection:
            rows = await connection.fetch(query, path_id(request, name))
        if not rows:
            raise NodeNotFound
        return rows[0]["node_id"]

    return find


async def known_node_id(request: Request, requester: Requester, node: NodeFinder | str = "node_id") -> UUID:
    """Return the id of a request's node: the path parameter *node*, or the result of the function *node*.

    Raises:
        TokenMissing: There is no such node, and the requester is anonymous.
        NodeNotFound: There is no such node, and the requester is not anonymous.
    """
    try:
        return path_id(request, node) if isinstance(node, str) else await node(request)
    except NodeNotFound:
        if requester.is_anonymous:
            raise TokenMissing from None
        raise


def node_access(
    needed: Role = Role.VIEWER,
    *,
    node: NodeFinder | str = "node_id",
    kind: NodeKind | None = None,
    resource: str | None = None,
) -> Callable[..., Awaitable[Access]]:
    """Return a dependency that requires a role on a live node, and returns the access to the node.

    Args:
        needed: The role that the requester needs.
        node: The path parameter with the node's id, or a function that finds the node.
        kind: The kind that the node must have; None for any.
        resource: The word for the object that the path names, such as "link"; if it is missing, the error is
            ``ResourceNotFound`` with this word. None if the path names a node; then it is ``NodeNotFound``.

    The dependency raises TokenMissing if the role is too low and the request has no bearer token.
    """

    async def read_access(request: Request, requester: CurrentRequester) -> Access:
        try:
            with as_resource_not_found(resource) if resource else nullcontext():
                node_id = await known_node_id(request, requester, node)
                access = await dependencies_of(request).access(node_id, requester)
                if kind is not None:
                    access.require_kind(kind)
                access.require(needed)
        except RoleMissing:
            if requester.subject is None:
                # The requester may read the node, because the node is public or because of a share link. With
                # a bearer token, the requester may have a higher role.
                raise TokenMissing from None
            raise
        return access

    return read_access


def begin_command(
    command_type: str,
    needed: Role,
    *,
    node: OptionalNodeFinder | str = "node_id",
    kind: NodeKind | None = None,
    resource: str | None = None,
    before_transaction: BeforeTransaction | None = None,
) -> Callable[..., Awaitable[CommandTransaction]]:
    """Return a dependency that requires a role on a live node, and returns the transaction of a command.

    Args:
        command_type: The type of the command, a label of the metrics.
        needed: The role that the sender needs. The dependency checks the role before a stored response is
            replayed (G68), without a lock; the command must check the role again under a lock.
        node: The path parameter with the node's id, or a function that finds the node. If the function
            returns None, no role is checked.
        kind: The kind that the node must have; None for any.
        resource: None if the path names a node, see :func:`node_access`.
        before_transaction: Slow work, such as hashing a password, that runs after authorization and before
            the transaction begins, so that no transaction waits for it; None for no such work.
    """

    async def authorize(request: Request, requester: Requester) -> None:
        with as_resource_not_found(resource) if resource else nullcontext():
            node_id = path_id(request, node) if isinstance(node, str) else await node(request)
            if node_id is not None:
                access = await dependencies_of(request).access(node_id, requester)
                if kind is not None:
                    access.require_kind(kind)
                access.require(needed)
        if before_transaction is not None:
            await before_transaction(request)

    return begin_authorized_command(command_type, authorize)


def begin_authorized_command(
    command_type: str, authorize: Callable[[Request, Requester], Awaitable[None]]
) -> Callable[..., Awaitable[CommandTransaction]]:
    """Return a dependency that calls *authorize*, and returns the transaction of a command.

    *authorize* raises an error if the requester may not send the command. It runs before a stored response is
    replayed (G68), without a lock; the command must check again under a lock. The metrics count the outcome
    of the request under the label *command_type*.
    """

    async def authorized(
        request: Request,
        principal: Annotated[Principal, Depends(authenticated)],
        _counted: Annotated[None, Depends(count_command_errors(command_type))],
    ) -> Principal:
        # RouteDependencies.begin_command reads this.
        link_id = request.state.link_id = await dependencies_of(request).link_id(request)
        request.state.principal = principal
        await authorize(request, Requester(subject=principal.subject, link_id=link_id))
        return principal

    unit_of_request = unit_of_work(lambda request: dependencies_of(request).database, authorized)

    async def begin(
        request: Request, unit: Annotated[UnitOfWork[Principal], Depends(unit_of_request)]
    ) -> CommandTransaction:
        return dependencies_of(request).begin_command(request, unit)

    return begin


@cache
def count_command_errors(command_type: str) -> Callable[..., AsyncGenerator[None]]:
    """Return a dependency that counts the error of a request as the outcome of a command of this type.

    All calls with one type return the same function. FastAPI runs it once per request, even if several
    dependencies of the route depend on it, so an error is counted once.
    """

    async def count(request: Request) -> AsyncGenerator[None]:
        request.state.command_type = command_type
        with dependencies_of(request).backbone.count_refusals(command_type):
            yield

    return count
