"""Commit an endpoint's writes, events and stored response in one transaction: a unit of work (G63)."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any, Final, Generic, TypeVar
from uuid import UUID

from fastapi import Depends, Request
from sqlalchemy.ext.asyncio import AsyncSession

from relaybox.db import Database, map_database_errors, refuse_commits
from relaybox.http._idempotent_decorator import policy_of
from relaybox.http._idempotent_request import idempotent_request_of
from relaybox.http._tokens import Principal
from relaybox.idempotency import IdempotencyService
from relaybox.settings import IdempotencySettings, load_settings

__all__ = ("UnitOfWork", "has_stored_response", "is_unit", "unit_of_work")

P = TypeVar("P", bound=Principal | str)
_UNIT: Final = "relaybox_unit"


class _UnitStore(IdempotencyService):
    """The store of a unit of work; only its ``commit`` may commit the session of the unit of work."""

    async def commit(self) -> None:
        refuse_commits(self._session, None)
        await super().commit()


def _commit_refused() -> RuntimeError:
    return RuntimeError(
        "an endpoint must not commit its unit of work, which is committed with the response; "
        "call flush(), or use begin_nested()"
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class UnitOfWork(Generic[P]):
    """The transaction of one request: writes through ``db`` are committed if the response is 2xx or 3xx.

    Relaybox commits before it sends the first byte of the response. If the endpoint raises or responds with
    an error, the transaction is rolled back, and nothing is stored under the request's key.
    """

    #: Session of the transaction; the endpoint must not commit it.
    db: AsyncSession
    #: The sender of the request.
    principal: P
    #: The client's idempotency key, for :class:`relaybox.commands.InboxCommand`; None if the request has
    #: none.
    key: str | None = None
    _note_targets: Callable[[Iterable[str]], None] = field(repr=False)

    def about(self, *targets: UUID | str) -> None:
        """Store *targets* with the response, so that an erasure of one of them erases the response too.

        :func:`relaybox.events.erase` erases the content of an aggregate. After the erasure, a retry of this
        request gets 410 ``RESPONSE_NOT_KEPT``. Without a key this method does nothing.

        Args:
            targets: Ids of aggregates that the response describes. They are added to those of earlier calls.

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

    The transaction is READ COMMITTED and begins after the whole body was received.

    Args:
        database: The database, or a function that returns the database of a request, for routes that are
            declared before the database exists.
        principal: Dependency that returns the sender of a request, and raises if the sender may not use the
            route. It runs before each replay (G68), so check the sender's rights in it or in an earlier
            dependency.
        settings: None reads ``IDEMPOTENCY_*`` from the environment.

    The dependency raises:
        KeyInvalid, KeyMissing, KeyReused, RequestInFlight, ResponseNotKept: See :mod:`relaybox.idempotency`.
        Replay: A response is stored under the key; the middleware sends this response.
        DatabaseUnavailable, DatabaseBusy: PostgreSQL cannot begin a transaction.
        RuntimeError: The application has no :class:`IdempotencyMiddleware`, or the endpoint depends on two
            units of work.
    """

    @cache
    def known() -> IdempotencySettings:
        # Settings are read at the first request: modules that declare routes are imported without settings.
        return settings or load_settings(IdempotencySettings)

    async def begin(
        request: Request, sender: Annotated[Any, Depends(principal)]
    ) -> AsyncGenerator[UnitOfWork[P]]:
        idempotent, policy = idempotent_request_of(request), policy_of(request.scope.get("endpoint"))
        # Read before the transaction begins, so that no connection is held while a slow client sends its
        # body.
        await idempotent.key.read_body(request)
        with idempotent.deciding():
            claim = await idempotent.claim(request, sender, policy)
            await idempotent.leave_cache()
            db = await (database if isinstance(database, Database) else database(request)).begin()
            refuse_commits(db, _commit_refused)
            await idempotent.hold_for_unit(_UnitStore(db, settings=known()), claim)
        # The middleware commits and releases the store. While the endpoint runs, errors of the database
        # driver are mapped to errors that have a response.
        with map_database_errors():
            yield UnitOfWork(
                db=db, principal=sender, key=claim and claim.key, _note_targets=idempotent.add_targets
            )

    vars(begin)[_UNIT] = True
    return begin


def is_unit(dependency: object) -> bool:
    """Return whether *dependency* was returned by :func:`unit_of_work`."""
    return hasattr(dependency, _UNIT)


async def has_stored_response(
    request: Request,
    database: Database,
    principal: Principal | str,
    *,
    settings: IdempotencySettings | None = None,
) -> bool:
    """Return whether a response of a unit of work is stored under the key of *request*.

    If the result is True, a dependency that runs before the unit of work can skip slow preparations: the unit
    of work will replay the response or refuse the request, unless the response expires in between. The call
    waits until the whole body was received.

    Args:
        request: The request with the key.
        database: The database of the unit of work.
        principal: The sender of the request.
        settings: The settings of the unit of work; None reads ``IDEMPOTENCY_*`` from the environment.

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
