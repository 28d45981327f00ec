"""What every route of a workspace begins with: who asks, what they may do, and the unit of work."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Annotated, Any, Final, TypeVar
from uuid import UUID

from fastapi import Depends, Header, Request
from fastapi.security import APIKeyHeader
from pydantic import BaseModel
from pydantic_core import to_json
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
    error_responses,
    has_stored_response,
    read_model,
    unit_of_work,
)
from shared_types.workspace import NodeKind, Role
from starlette.responses import Response

from backend.workspace.access import Access, access_of
from backend.workspace.core import ACCESS_SQL, CommandTransaction, ancestors_from_rows, etag
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
from backend.workspace.http._share_tokens import ShareTokens
from backend.workspace.responses import WORKSPACE_ERROR_RESPONSES

__all__ = (
    "MATCH_ERRORS",
    "READ_ERRORS",
    "RESOURCE_READ_ERRORS",
    "RESOURCE_WRITE_ERRORS",
    "SHARE_HEADER",
    "WRITE_ERRORS",
    "IfMatchHeader",
    "NodeFinder",
    "OptionalNodeFinder",
    "Requester",
    "RouteDependencies",
    "documented_errors",
    "json_response",
    "parse_body",
    "path_id",
)

Model = TypeVar("Model", bound=BaseModel)

READ_ERRORS: Final = (*AUTH_ERRORS, ShareTokenInvalid, NodeNotFound, RoleMissing, *DATABASE_ERRORS)
MATCH_ERRORS: Final = (IfMatchMissing, IfMatchMalformed, IfMatchWeak, VersionStale)
WRITE_ERRORS: Final = (*READ_ERRORS, *BODY_ERRORS, BadHeader, *KEY_ERRORS)
RESOURCE_READ_ERRORS: Final = tuple(ResourceNotFound if one is NodeNotFound else one for one in READ_ERRORS)
RESOURCE_WRITE_ERRORS: Final = tuple(ResourceNotFound if one is NodeNotFound else one for one in WRITE_ERRORS)
SHARE_HEADER: Final = "X-Share-Token"
"""The header of a ticket."""
_SHARE_SCHEME: Final = APIKeyHeader(
    name=SHARE_HEADER,
    auto_error=False,
    scheme_name="share",
    description="What POST /links/{token}/open has answered; beside a bearer token or, to read, alone.",
)


async def _if_match(
    request: Request,
    # Only for the OpenAPI document: FastAPI reads one line of several.
    _documented: Annotated[
        str | None, Header(alias="If-Match", description="the ETag of what you have read")
    ] = None,
) -> str | None:
    lines = request.headers.getlist("if-match")
    # As one list (RFC 9110, section 5.3).
    return ", ".join(lines) if lines else None


IfMatchHeader = Annotated[str | None, Depends(_if_match)]
"""For :meth:`IfMatch.parse`, by the route itself: a key is answered again before a version is asked for."""
OptionalNodeFinder = Callable[[Request], Awaitable[UUID | None]]
"""Which node a request is about, before its unit of work begins; null for none."""
NodeFinder = Callable[[Request], Awaitable[UUID]]
"""The same where there must be one; raises NodeNotFound."""
BeforeTransaction = Callable[[Request], Awaitable[None]]
"""What takes long and needs no transaction."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Requester:
    """Who reads; nobody in particular without a token."""

    subject: str | None
    #: The link that the request came with.
    link_id: UUID | None = None


def documented_errors(*errors: Any) -> dict[int | str, dict[str, Any]]:
    """``responses=`` of a route that may raise *errors*."""
    return error_responses(*errors, error_table=WORKSPACE_ERROR_RESPONSES)


def path_id(request: Request, name: str = "node_id") -> UUID:
    """The id under *name* in the path.

    Raises:
        NodeNotFound: it is no UUID, and so the id of nothing.
    """
    try:
        return UUID(request.path_params[name])
    except ValueError:
        raise NodeNotFound from None


class RouteDependencies:
    """Dependencies of the routes, on one backbone."""

    def __init__(self, backbone: Backbone, share_tokens: ShareTokens) -> None:
        self.backbone = backbone
        self.share_tokens = share_tokens
        #: The dependency that says who sends a request with a bearer token.
        self.authenticated = bearer(backbone.verifier)
        self._counting: dict[str, Callable[..., AsyncGenerator[None]]] = {}

    async def requester(
        self,
        request: Request,
        # Only for the document: who reads may have either, both or none.
        _bearer: Annotated[Any, Depends(BEARER_SCHEME)],
        ticket: Annotated[str | None, Depends(_SHARE_SCHEME)],
    ) -> Requester:
        """Who reads, for a route that is open to everybody; a token that is sent must be good.

        Raises:
            TokenInvalid, TokenExpired, ShareTokenInvalid: it is not.
        """
        link_id = await self._link_id(ticket)
        if "authorization" not in request.headers:
            return Requester(subject=None, link_id=link_id)
        principal = await self.authenticated(request)
        return Requester(subject=principal.subject, link_id=link_id)

    async def _link_id(self, ticket: str | None) -> UUID | None:
        return await self.share_tokens.read_link_id(ticket) if ticket else None

    async def access(self, node_id: UUID, requester: Requester) -> Access:
        """What *viewer* may do on a node, live or not.

        Raises:
            TokenMissing: nobody in particular may read it; the same whether it exists or not.
            NodeNotFound: there is no such node.
        """
        async with self.backbone.database.connection() as connection:
            rows = await connection.fetch(
                ACCESS_SQL["ancestors"], node_id, requester.subject, requester.link_id
            )
        if not rows and requester == Requester(subject=None):
            raise TokenMissing
        access = access_of(ancestors_from_rows(rows), requester.subject)
        # A public node in the bin too: else its answer would tell that it was there.
        if requester == Requester(subject=None) and (access.role is None or access.trashed is not None):
            raise TokenMissing
        return access

    def reading(
        self,
        needed: Role = Role.VIEWER,
        *,
        node: NodeFinder | str = "node_id",
        kind: NodeKind | None = None,
        resource: str | None = None,
    ) -> Callable[..., Awaitable[Access]]:
        """A dependency: access to the live node that *node* names, for who may what *needed* may.

        *node* is the name of its id in the path, or says which one it is. *kind*: which it must be; null for
        any. *thing* is what the path names, if it is no node: a hidden one is reported like a missing one.
        """

        async def look(request: Request, requester: Annotated[Requester, Depends(self.requester)]) -> Access:
            try:
                with as_resource_not_found(resource) if resource else nullcontext():
                    access = await self.access(await self.known(request, requester, node), requester)
                    if kind is not None:
                        access.require_kind(kind)
                    access.require(needed)
            except RoleMissing:
                if requester.subject is None:
                    # It is public, or open by a link; who this is may do more.
                    raise TokenMissing from None
                raise
            return access

        return look

    async def known(self, request: Request, requester: Requester, node: NodeFinder | str = "node_id") -> UUID:
        """The id of the node that *node* names, see :meth:`reading`.

        Raises:
            TokenMissing: there is none, and nobody in particular asks.
            NodeNotFound: there is none.
        """
        try:
            return path_id(request, node) if isinstance(node, str) else await node(request)
        except NodeNotFound:
            if requester.subject is None and requester.link_id is None:
                raise TokenMissing from None
            raise

    def node_of(self, query: str, name: str) -> NodeFinder:
        """Which node has the thing whose id stands under *name* in the path; *query* finds it as ``node_id``.

        It raises NodeNotFound if there is none; ``thing=`` beside ``node=`` names the thing instead.
        """

        async def look(request: Request) -> UUID:
            async with self.backbone.database.connection() as connection:
                rows = await connection.fetch(query, path_id(request, name))
            if not rows:
                raise NodeNotFound
            return rows[0]["node_id"]

        return look

    def counting(self, command_type: str) -> Callable[..., AsyncGenerator[None]]:
        """A dependency: count the error that a request ends with as the outcome of a command.

        The same function for the same type, so that FastAPI runs it once for each request.
        """

        async def counted(request: Request) -> AsyncGenerator[None]:
            request.state.command_type = command_type
            with self.backbone.count_refusals(command_type):
                yield

        return self._counting.setdefault(command_type, counted)

    def writing(
        self,
        command_type: str,
        needed: Role | None = None,
        *,
        node: OptionalNodeFinder | str = "node_id",
        kind: NodeKind | None = None,
        live: bool = True,
        resource: str | None = None,
        ahead: BeforeTransaction | None = None,
    ) -> Callable[..., AsyncGenerator[UnitOfWork[Principal]]]:
        """A dependency: the unit of work, for who may do what *needed* may to a node; null for anybody.

        *command_type* is what the route records, for the metrics. *node* is the name of its id in the path,
        or returns the id. Access is checked before a stored response is replayed (G68); the write checks it
        again under a lock. *kind*: which it must be; null for any. *live*: the node is not in the bin.
        *thing*: see :meth:`reading`.
        *ahead* is done for who may, before the transaction begins, which must not wait for it.
        """

        async def admit(request: Request, requester: Requester) -> None:
            if needed is not None:
                with as_resource_not_found(resource) if resource else nullcontext():
                    node_id = path_id(request, node) if isinstance(node, str) else await node(request)
                    if node_id is not None:
                        access = await self.access(node_id, requester)
                        if kind is not None:
                            access.require_kind(kind)
                        (access.require if live else access.require_role)(needed)
            if ahead is not None:
                await ahead(request)

        return self.admitting(command_type, admit)

    def admitting(
        self, command_type: str, admit: Callable[[Request, Requester], Awaitable[None]]
    ) -> Callable[..., AsyncGenerator[UnitOfWork[Principal]]]:
        """A dependency: the unit of work, for whom *admit* lets pass.

        *admit* runs before a stored response is replayed (G68); the write checks again under a lock. The
        outcome of the request is counted for *command_type*.
        """
        authenticated, counted = self.authenticated, self.counting(command_type)

        async def entitled(
            request: Request,
            principal: Annotated[Principal, Depends(authenticated)],
            _counted: Annotated[None, Depends(counted)],
        ) -> Principal:
            # Kept for the command's own look, see :meth:`work`.
            link_id = request.state.link_id = await self._link_id(request.headers.get(SHARE_HEADER))
            request.state.principal = principal
            await admit(request, Requester(subject=principal.subject, link_id=link_id))
            return principal

        return unit_of_work(self.backbone.database, entitled)

    async def answered(self, request: Request) -> bool:
        """Whether a request whose sender may pass was answered before, under its key."""
        return await has_stored_response(request, self.backbone.database, request.state.principal)

    def begin_command(self, request: Request, unit: UnitOfWork[Principal]) -> CommandTransaction:
        """A command of this request, which passed :meth:`writing`, in its unit of work."""
        caller = caller_of(request, unit.principal, self.backbone.service)

        def count(command: InboxCommand) -> None:
            assert command.command_type == request.state.command_type, "the route names another command"
            self.backbone.count_after_commit(unit.db, command.command_type, command.status.value)

        return CommandTransaction(
            unit.db,
            caller,
            key=unit.key,
            link_id=request.state.link_id,
            tag_response=unit.about,
            on_recorded=count,
        )


async def parse_body(request: Request, model: type[Model]) -> Model:
    """The request's body as a *model*; read once, however many ask: who may pass can depend on it.

    Raises:
        HttpError: see :func:`relaybox.http.read_model`.
    """
    held: Any = getattr(request.state, "body", None)
    if not isinstance(held, model):
        held = request.state.body = await read_model(request, model)
    return held


def json_response(
    status: int, body: bytes | object, *, version: int | None = None, location: str | None = None
) -> Response:
    """*body* as JSON, with the ETag of *version*; bytes are taken as JSON already."""
    headers = {} if version is None else {"ETag": etag(version)}
    if location is not None:
        headers["Location"] = location
    content = body if isinstance(body, bytes) else to_json(body)
    return Response(content, status, headers, media_type="application/json")
