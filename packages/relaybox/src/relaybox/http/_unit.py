"""The unit of work: an endpoint's writes, events and response commit in one transaction (G63)."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any, Final, Generic, TypeVar
from uuid import UUID

from fastapi import Depends, Request
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from relaybox.db import Database, map_database_errors
from relaybox.http._idempotent import policy_of
from relaybox.http._idempotent_request import idempotent_request_of
from relaybox.http._tokens import Principal
from relaybox.idempotency import IdempotencyService
from relaybox.settings import IdempotencySettings, load_settings

__all__ = ("UnitOfWork", "has_stored_response", "is_unit", "unit_of_work")

P = TypeVar("P", bound=Principal | str)
_COMMITTED: Final = "relaybox.unit_committed"
_UNIT: Final = "relaybox_unit"


class _UnitStore(IdempotencyService):
    """The store of a unit of work, the only code that commits its session."""

    async def commit(self) -> None:
        self._session.info[_COMMITTED] = True
        await super().commit()


def _refuse_to_commit(session: Session) -> None:
    # SQLAlchemy sends the event for savepoints too, which the endpoint may commit.
    if not session.in_nested_transaction() and _COMMITTED not in session.info:
        raise RuntimeError(
            "Relaybox commits a unit of work, with the response: call flush() instead, or use begin_nested()"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class UnitOfWork(Generic[P]):
    """The transaction of one request: writes through ``db`` are committed if the response is 2xx or 3xx.

    Relaybox commits before it sends the first byte of the response. If the endpoint raises or responds with
    an error, the transaction is rolled back, and nothing is stored under the request's key.
    """

    db: AsyncSession
    principal: P
    #: The client's idempotency key, as :class:`relaybox.commands.InboxCommand` takes it; null without one.
    key: str | None = None
    _note_targets: Callable[[Iterable[str]], None] = field(repr=False)

    def about(self, *targets: UUID | str) -> None:
        """Erase the stored response together with any of *targets*, ids of aggregates; adds to earlier calls.

        A replay after the erasure is 410 ``RESPONSE_NOT_KEPT``; see :func:`relaybox.events.erase`. Without a
        key no response is stored.

        Raises:
            ValueError: The response has more than 100 targets.
        """
        self._note_targets(str(target) for target in targets)


def unit_of_work(
    database: Database | Callable[[Request], Database],
    principal: Callable[..., Awaitable[P]],
    *,
    settings: IdempotencySettings | None = None,
) -> Callable[..., AsyncGenerator[UnitOfWork[P]]]:
    """Return a FastAPI dependency that yields a unit of work: ``Annotated[UnitOfWork[...], Depends(...)]``.

    *principal* is a dependency that returns the sender of a request, and raises if the sender may not use the
    route. It runs before every replay (G68): put an ownership check into it, or into an earlier dependency.
    The transaction is READ COMMITTED and begins after the whole body was received.

    *database* may be a function that finds the database of a request, for routers declared at module level.

    The dependency raises:
        KeyInvalid, KeyMissing, KeyReused, RequestInFlight, ResponseNotKept: See :mod:`relaybox.idempotency`.
        DatabaseUnavailable, DatabaseBusy: PostgreSQL cannot begin a transaction.
        RuntimeError: The application has no :class:`IdempotencyMiddleware`.
    """

    @cache
    def known() -> IdempotencySettings:
        # Read at the first request: modules that declare routes are imported without settings.
        return settings or load_settings(IdempotencySettings)

    async def begin(
        request: Request, sender: Annotated[Any, Depends(principal)]
    ) -> AsyncGenerator[UnitOfWork[P]]:
        idempotent, policy = idempotent_request_of(request), policy_of(request.scope.get("endpoint"))
        # Before the transaction, with or without a key: a connection must not wait for a slow client.
        await idempotent.key.read_body(request)
        with idempotent.deciding():
            claim = await idempotent.claim(request, sender, policy)
            await idempotent.leave_cache()
            db = await (database if isinstance(database, Database) else database(request)).begin()
            event.listen(db.sync_session, "before_commit", _refuse_to_commit)
            await idempotent.hold_for_unit(_UnitStore(db, settings=known()), claim)
        # The middleware commits and releases; here errors of the driver become errors with a response.
        with map_database_errors():
            yield UnitOfWork(
                db=db, principal=sender, key=claim and claim.key, _note_targets=idempotent.add_targets
            )

    vars(begin)[_UNIT] = True
    return begin


def is_unit(dependency: object) -> bool:
    """Whether *dependency* was returned by :func:`unit_of_work`."""
    return hasattr(dependency, _UNIT)


async def has_stored_response(
    request: Request,
    database: Database,
    principal: Principal | str,
    *,
    settings: IdempotencySettings | None = None,
) -> bool:
    """Whether a response of a unit of work is stored under the key of *request*.

    Skip slow preparations before a unit of work if so: the unit of work will replay the response, unless the
    response expires meanwhile. Waits for the whole body.

    Args:
        request: The request with the key.
        database: The database of the unit of work.
        principal: The sender of the request.
        settings: The settings of the unit of work.

    Raises:
        KeyInvalid, KeyMissing: See :mod:`relaybox.idempotency`.
        DatabaseUnavailable, DatabaseBusy: PostgreSQL is unreachable.
    """
    idempotent, policy = idempotent_request_of(request), policy_of(request.scope.get("endpoint"))
    with idempotent.deciding():
        claim = await idempotent.claim(request, principal, policy)
    if claim is None:
        return False
    db = await database.begin()
    try:
        return await IdempotencyService(db, settings=settings).find(claim.key, scope=claim.scope) is not None
    finally:
        await db.close()
