"""Links over HTTP: made and revoked by admins, opened by anybody who has them."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Request
from relaybox.http import (
    BODY_ERRORS,
    DATABASE_ERRORS,
    Principal,
    UnitOfWork,
    ValidationFailed,
    idempotent,
    json_body,
    read_model,
)
from shared_types.workspace import Role
from shared_types.workspace_sharing_api import CreateLink, LinkMade, LinkOpened, LinkSeen, OpenLink
from starlette.responses import Response

from backend.workspace.errors import (
    LinkNotFound,
    LinkPasswordWrong,
    LinkTriesExceeded,
    ShareLimitReached,
    TooManyPasswords,
)
from backend.workspace.http import (
    RESOURCE_WRITE_ERRORS,
    WRITE_ERRORS,
    RouteDependencies,
    documented_errors,
    json_response,
    parse_body,
    path_id,
)
from backend.workspace.sharing._link_opener import LinkOpener
from backend.workspace.sharing._links import LINKS_SQL, create_link, revoke_link
from backend.workspace.sharing._passwords import PasswordHasher

__all__ = ("add_link_routes",)

#: Whatever is no token is answered like one that leads nowhere.
Token = Annotated[str, Path(description="As it was shown when the link was made")]


def add_link_routes(router: APIRouter, deps: RouteDependencies, passwords: PasswordHasher) -> None:
    """The routes of links, whose passwords are hashed by *passwords*."""
    opener = LinkOpener(deps.backbone.database, deps.share_tokens, passwords)
    _add_create(router, deps, passwords)
    _add_revoke(router, deps)
    _add_find(router, opener)
    _add_open(router, opener)


def _add_create(router: APIRouter, deps: RouteDependencies, passwords: PasswordHasher) -> None:
    async def hashed(body: CreateLink, person: Principal) -> str | None:
        if body.password is None:
            return None
        with passwords.limit.slot(person.subject):
            return await passwords.hash(body.password.get_secret_value())

    async def hash_ahead(request: Request) -> None:
        """Hash a password before the transaction begins, which must not wait for it."""
        body = await parse_body(request, CreateLink)
        if body.password is not None and not await deps.answered(request):
            request.state.password_hash = await hashed(body, request.state.principal)

    begun = Depends(deps.writing("CreateLink", Role.ADMIN, ahead=hash_ahead))

    @router.post(
        "/share/{node_id}/links",
        status_code=201,
        summary="Make a link; its token is shown this once",
        openapi_extra=json_body(CreateLink),
        responses={
            201: {"model": LinkMade},
            **documented_errors(*WRITE_ERRORS, ShareLimitReached, TooManyPasswords),
        },
    )
    @idempotent(secret=True)
    async def create(request: Request, unit: Annotated[UnitOfWork[Principal], begun]) -> Response:
        node_id, body = path_id(request), await parse_body(request, CreateLink)
        kept: str | None = getattr(request.state, "password_hash", None)
        if kept is None:
            # The key was answered before, and has expired since; or there is no password.
            kept = await hashed(body, unit.principal)
        link, token = await create_link(deps.begin_command(request, unit), node_id, body, kept)
        made = LinkMade(**link.model_dump(), token=token)
        location = f"{request.url.path.rsplit('/', 2)[0]}/links/{link.id}"
        return _no_store(json_response(201, made, location=location))

    _ = create


def _add_revoke(router: APIRouter, deps: RouteDependencies) -> None:
    async def node_of(request: Request) -> UUID | None:
        """Null for a link that is gone: who revoked it may repeat that under their key."""
        async with deps.backbone.database.connection() as connection:
            rows = await connection.fetch(LINKS_SQL["node_of_link"], path_id(request, "link_id"))
        return rows[0]["node_id"] if rows else None

    begun = Depends(deps.writing("RevokeLink", Role.ADMIN, node=node_of, resource="link"))

    @router.delete(
        "/share/links/{link_id}",
        status_code=204,
        summary="Revoke a link",
        responses=documented_errors(*RESOURCE_WRITE_ERRORS),
    )
    async def revoke(request: Request, unit: Annotated[UnitOfWork[Principal], begun]) -> Response:
        await revoke_link(deps.begin_command(request, unit), path_id(request, "link_id"))
        return Response(status_code=204)

    _ = revoke


def _add_find(router: APIRouter, opener: LinkOpener) -> None:
    @router.get(
        "/links/{token}",
        summary="Where a link leads",
        responses={
            200: {"model": LinkSeen},
            **documented_errors(LinkNotFound, *DATABASE_ERRORS, ValidationFailed),
        },
    )
    async def find(token: Token) -> Response:
        return _no_store(json_response(200, (await opener.find(token)).view()))

    _ = find


def _add_open(router: APIRouter, opener: LinkOpener) -> None:
    @router.post(
        "/links/{token}/open",
        summary="Open a link: a share token for further requests",
        openapi_extra={"requestBody": {**json_body(OpenLink)["requestBody"], "required": False}},
        responses={
            200: {"model": LinkOpened},
            **documented_errors(
                LinkNotFound,
                LinkPasswordWrong,
                LinkTriesExceeded,
                TooManyPasswords,
                *BODY_ERRORS,
                *DATABASE_ERRORS,
            ),
        },
    )
    async def open_link(request: Request, token: Token) -> Response:
        link = await opener.find(token)
        body = await read_model(request, OpenLink) if _has_body(request) else OpenLink()
        password = None if body.password is None else body.password.get_secret_value()
        return _no_store(json_response(200, await opener.open(link, password)))

    _ = open_link


def _has_body(request: Request) -> bool:
    """Whether a body comes with *request* (RFC 9112, section 6.3)."""
    headers = request.headers
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"


def _no_store(answer: Response) -> Response:
    """Kept by no cache on the way: it is a secret, or not true for long."""
    answer.headers["Cache-Control"] = "no-store"
    return answer
