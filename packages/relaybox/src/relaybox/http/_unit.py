"""The unit of work: what an endpoint writes, the events of it, and its answer commit together (G63)."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar

from fastapi import Depends, Request
from sqlalchemy.ext.asyncio import AsyncSession

from relaybox.db import Database, map_database_errors
from relaybox.http._exchange import exchange_of
from relaybox.http._idempotent import policy_of
from relaybox.http._tokens import Principal
from relaybox.idempotency import IdempotencyService
from relaybox.settings import IdempotencySettings, load_settings

__all__ = ("UnitOfWork", "unit_of_work")

P = TypeVar("P", bound=Principal | str)


@dataclass(frozen=True, kw_only=True, slots=True)
class UnitOfWork(Generic[P]):
    """The transaction of one request: what is written through ``db`` counts if the answer is 2xx or 3xx.

    It is Relaybox's to commit, which happens before the first byte of the answer leaves. An endpoint that
    raises, or answers with an error, has written nothing, and nothing is kept under the request's key.
    """

    db: AsyncSession
    principal: P


def unit_of_work(
    database: Database,
    principal: Callable[..., Awaitable[P]],
    *,
    settings: IdempotencySettings | None = None,
) -> Callable[..., AsyncGenerator[UnitOfWork[P]]]:
    """A FastAPI dependency that hands out the unit of work: ``Annotated[UnitOfWork[...], Depends(it)]``.

    *principal* is itself a dependency: it says who asks, and refuses who may not. It runs before an answer is
    given again, every time (G68); so an ownership check belongs into it, or into a dependency that stands
    before this one. The transaction is READ COMMITTED and begins here.

    The dependency raises:
        KeyInvalid, KeyMissing, KeyReused, RequestInFlight, ResponseNotKept: see :mod:`relaybox.idempotency`.
        DatabaseUnavailable, DatabaseBusy: PostgreSQL cannot begin.
        RuntimeError: the application has no :class:`IdempotencyMiddleware`.
    """
    known = settings or load_settings(IdempotencySettings)

    async def begin(
        request: Request, who: Annotated[Any, Depends(principal)]
    ) -> AsyncGenerator[UnitOfWork[P]]:
        exchange, policy = exchange_of(request), policy_of(request.scope.get("endpoint"))
        # First, as it waits for the whole body: a slow client must not hold a transaction.
        claim = await exchange.claim(request, who, policy)
        db = await database.begin()
        await exchange.begin_unit(IdempotencyService(db, settings=known), request, claim)
        # The exchange commits and closes; here what the endpoint meets gets a name, and with it an answer.
        with map_database_errors():
            yield UnitOfWork(db=db, principal=who)

    return begin
