"""The unit of work: what an endpoint writes, the events of it, and its answer commit together (G63)."""

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
_ENDED: Final = "relaybox.unit_ended"
_UNIT: Final = "relaybox_unit"


class _UnitStore(IdempotencyService):
    """Ends the unit; nobody else does."""

    async def commit(self) -> None:
        self._session.info[_ENDED] = True
        await super().commit()


def _refuse_to_commit(session: Session) -> None:
    # The event comes for savepoints too, which are the endpoint's own.
    if not session.in_nested_transaction() and _ENDED not in session.info:
        raise RuntimeError(
            "a unit of work is committed by Relaybox, with the answer: flush() instead, or use begin_nested()"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class UnitOfWork(Generic[P]):
    """The transaction of one request: what is written through ``db`` counts if the answer is 2xx or 3xx.

    It is Relaybox's to commit, which happens before the first byte of the answer leaves. An endpoint that
    raises, or answers with an error, has written nothing, and nothing is kept under the request's key.
    """

    db: AsyncSession
    principal: P
    #: The client's idempotency key, as :class:`relaybox.commands.InboxCommand` takes it; null without one.
    key: str | None = None
    _note_targets: Callable[[Iterable[str]], None] = field(repr=False)

    def about(self, *targets: UUID | str) -> None:
        """Say what the answer is about, 100 ids at the most: it is erased with any of them.

        A replay then is 410 ``RESPONSE_NOT_KEPT``; see :func:`relaybox.events.erase`. Adds to what was said
        before; without a key nothing is kept, and nothing needs to be erased.

        Raises:
            ValueError: the answer is about more.
        """
        self._note_targets(str(target) for target in targets)


def unit_of_work(
    database: Database | Callable[[Request], Database],
    principal: Callable[..., Awaitable[P]],
    *,
    settings: IdempotencySettings | None = None,
) -> Callable[..., AsyncGenerator[UnitOfWork[P]]]:
    """A FastAPI dependency that hands out the unit of work: ``Annotated[UnitOfWork[...], Depends(it)]``.

    *principal* is itself a dependency: it says who asks, and refuses who may not. It runs before an answer is
    given again, every time (G68); so an ownership check belongs into it, or into a dependency that stands
    before this one. The transaction is READ COMMITTED and begins here, after the whole body has arrived.

    *database* may be a function that finds the database of a request, for routers declared at module level.

    The dependency raises:
        KeyInvalid, KeyMissing, KeyReused, RequestInFlight, ResponseNotKept: see :mod:`relaybox.idempotency`.
        DatabaseUnavailable, DatabaseBusy: PostgreSQL cannot begin.
        RuntimeError: the application has no :class:`IdempotencyMiddleware`.
    """

    @cache
    def known() -> IdempotencySettings:
        # Not here: a module that declares its routes is imported without its settings.
        return settings or load_settings(IdempotencySettings)

    async def begin(
        request: Request, who: Annotated[Any, Depends(principal)]
    ) -> AsyncGenerator[UnitOfWork[P]]:
        idempotent, policy = idempotent_request_of(request), policy_of(request.scope.get("endpoint"))
        # First, with or without a key: a connection must not wait for a slow client.
        await idempotent.key.read_body(request)
        with idempotent.deciding():
            claim = await idempotent.claim(request, who, policy)
            await idempotent.leave_cache()
            db = await (database if isinstance(database, Database) else database(request)).begin()
            event.listen(db.sync_session, "before_commit", _refuse_to_commit)
            await idempotent.hold_for_unit(_UnitStore(db, settings=known()), claim)
        # The exchange commits and closes; here what the endpoint meets gets a name, and with it an answer.
        with map_database_errors():
            yield UnitOfWork(
                db=db, principal=who, key=claim and claim.key, _note_targets=idempotent.add_targets
            )

    vars(begin)[_UNIT] = True
    return begin


def is_unit(dependency: object) -> bool:
    """Whether *dependency* is what :func:`unit_of_work` returns."""
    return hasattr(dependency, _UNIT)


async def has_stored_response(
    request: Request,
    database: Database,
    who: Principal | str,
    *,
    settings: IdempotencySettings | None = None,
) -> bool:
    """Whether *who*'s key of *request* was answered in a unit of work before.

    For what takes long ahead of one: it is not needed for a replay. The unit of work decides; what is kept
    may expire until then. Waits for the whole body. *settings* are those of the unit of work.

    Raises:
        KeyInvalid, KeyMissing: see :mod:`relaybox.idempotency`.
        DatabaseUnavailable, DatabaseBusy: PostgreSQL is away.
    """
    idempotent, policy = idempotent_request_of(request), policy_of(request.scope.get("endpoint"))
    with idempotent.deciding():
        claim = await idempotent.claim(request, who, policy)
    if claim is None:
        return False
    db = await database.begin()
    try:
        return await IdempotencyService(db, settings=settings).find(claim.key, scope=claim.scope) is not None
    finally:
        await db.close()
