"""Routes of share links: admins create and revoke links; every requester with the token may open a link."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Request
from relaybox.http import (
    BODY_ERRORS,
    DATABASE_ERRORS,
    ValidationFailed,
    idempotent,
    json_body,
    read_model,
)
from shared_types.workspace import Role
from shared_types.workspace_sharing_api import CreateLink, LinkMade, LinkOpened, LinkSeen, OpenLink
from starlette.responses import Response

from backend.workspace.core import CommandTransaction
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
    begin_command,
    dependencies_of,
    documented_errors,
    json_response,
    parse_body,
    path_id,
)
from backend.workspace.sharing._link_opener import LinkOpener
from backend.workspace.sharing._links import LINKS_SQL, create_link, revoke_link

__all__ = ("link_router",)

#: Declared as any text: a text that is not a token gets the response of an unknown token.
Token = Annotated[str, Path(description="The token in the response that created the link")]
link_router = APIRouter()


async def _link_opener(request: Request) -> LinkOpener:
    return LinkOpener.of(request)


Opener = Annotated[LinkOpener, Depends(_link_opener)]


async def _hash_password_of(request: Request, user: str) -> str | None:
    body, passwords = await parse_body(request, CreateLink), LinkOpener.of(request).passwords
    if body.password is None:
        return None
    with passwords.limit.slot(user):
        return await passwords.hash(body.password.get_secret_value())


async def _hash_before_transaction(request: Request) -> None:
    """Hash the password of a new link, unless the request has a stored response."""
    body = await parse_body(request, CreateLink)
    if body.password is not None and not await dependencies_of(request).has_stored_response(request):
        request.state.password_hash = await _hash_password_of(request, request.state.principal.subject)


@link_router.post(
    "/share/{node_id}/links",
    status_code=201,
    summary="Create a link; only this response contains its token",
    openapi_extra=json_body(CreateLink),
    responses={
        201: {"model": LinkMade},
        **documented_errors(*WRITE_ERRORS, ShareLimitReached, TooManyPasswords),
    },
)
@idempotent(secret=True)
async def create(
    request: Request,
    tx: Annotated[
        CommandTransaction,
        Depends(begin_command("CreateLink", Role.ADMIN, before_transaction=_hash_before_transaction)),
    ],
) -> Response:
    password_hash: str | None = getattr(request.state, "password_hash", None)
    if password_hash is None:
        # The link has no password; or the stored response existed at authorization, and has expired since
        # then.
        password_hash = await _hash_password_of(request, tx.caller.actor)
    link, token = await create_link(
        tx, path_id(request), await parse_body(request, CreateLink), password_hash
    )
    made = LinkMade(**link.model_dump(), token=token)
    location = f"{request.url.path.rsplit('/', 2)[0]}/links/{link.id}"
    return _no_store(json_response(201, made, location=location))


async def _node_of_link(request: Request) -> UUID | None:
    """Return the id of the link's node; None for a revoked link.

    None skips the check of the role: the user who revoked the link can repeat the request with the same
    idempotency key, and gets the stored response.
    """
    async with dependencies_of(request).database.connection() as connection:
        rows = await connection.fetch(LINKS_SQL["node_of_link"], path_id(request, "link_id"))
    return rows[0]["node_id"] if rows else None


@link_router.delete(
    "/share/links/{link_id}",
    status_code=204,
    summary="Revoke a link",
    responses=documented_errors(*RESOURCE_WRITE_ERRORS),
)
async def revoke(
    request: Request,
    tx: Annotated[
        CommandTransaction,
        Depends(begin_command("RevokeLink", Role.ADMIN, node=_node_of_link, resource="link")),
    ],
) -> Response:
    await revoke_link(tx, path_id(request, "link_id"))
    return Response(status_code=204)


@link_router.get(
    "/links/{token}",
    summary="Read title and kind of the node of a link",
    responses={
        200: {"model": LinkSeen},
        **documented_errors(LinkNotFound, *DATABASE_ERRORS, ValidationFailed),
    },
)
async def find(opener: Opener, token: Token) -> Response:
    return _no_store(json_response(200, (await opener.find(token)).view()))


@link_router.post(
    "/links/{token}/open",
    summary="Open a link; the response has a share token for further requests",
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
async def open_link(request: Request, opener: Opener, token: Token) -> Response:
    link = await opener.find(token)
    body = await read_model(request, OpenLink) if _has_body(request) else OpenLink()
    password = None if body.password is None else body.password.get_secret_value()
    return _no_store(json_response(200, await opener.open(link, password)))


def _has_body(request: Request) -> bool:
    """Return whether *request* has a body (RFC 9112, section 6.3)."""
    headers = request.headers
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"


def _no_store(response: Response) -> Response:
    """Add ``Cache-Control: no-store`` to *response*, which contains a secret or soon becomes outdated."""
    response.headers["Cache-Control"] = "no-store"
    return response
