"""Await functions of the application, which may do anything."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from relaybox.consumers._errors import HandlerAborted, HandlerEndedTransaction, HandlerTimedOut
from relaybox.consumers._message import Message
from relaybox.db import refuse_commits, transaction_was_ended

__all__ = ("await_application", "await_in_transaction", "log_call")

_log: Final = structlog.stdlib.get_logger(__name__)


def log_call(group: str, message: Message, event_id: UUID) -> None:
    """Log the place of an event before its handler, which may end the process, is called; level DEBUG."""
    if logging.getLogger(__name__).isEnabledFor(logging.DEBUG):
        topic, partition = message.partition
        place = {"topic": topic, "partition": partition, "offset": message.offset}
        _log.debug("handler called", group=group, **place, event_id=str(event_id))


async def await_application(call: Awaitable[None], timeout_s: float, is_closing: Callable[[], bool]) -> None:
    """Await a function of the application, and raise nothing but instances of ``Exception``.

    Args:
        call: The function, called.
        timeout_s: Seconds after which the function is cancelled.
        is_closing: Returns whether the consumer is stopping; if so, a cancellation came from the consumer.

    Raises:
        CancelledError: The consumer ends.
        HandlerTimedOut: The function did not end in *timeout_s* seconds.
        HandlerAborted: The function raised an exception that ends a program, or cancelled its own task.
    """
    task = asyncio.current_task()
    assert task is not None
    deadline = asyncio.timeout(timeout_s)
    try:
        async with deadline:
            await call
            if task.cancelling():  # a cancellation by the function itself arrives here, not at COMMIT
                await asyncio.sleep(0)
    except TimeoutError as error:
        if not deadline.expired():
            raise
        raise HandlerTimedOut(timeout_s) from error
    except Exception:
        raise
    except BaseException as error:
        if is_closing() and isinstance(error, asyncio.CancelledError):
            raise
        raise HandlerAborted(error) from error
    if deadline.expired():  # the function suppressed its cancellation
        raise HandlerTimedOut(timeout_s)


async def await_in_transaction(
    db: AsyncSession, call: Awaitable[None], timeout_s: float, is_closing: Callable[[], bool]
) -> None:
    """Await a function of the application, which must leave the transaction of *db* open.

    A commit is refused before it takes effect. Otherwise, if the function failed afterwards, the event would
    be recorded as processed with part of its effect.

    Args:
        db: The session of the function.
        call: The function, called.
        timeout_s: Seconds after which it is cancelled.
        is_closing: Returns whether the consumer is stopping; if so, a cancellation came from the consumer.

    Raises:
        HandlerEndedTransaction: The function tried to commit, or rolled back or closed, the session.
        CancelledError, HandlerTimedOut, HandlerAborted: See :func:`await_application`.
    """
    transaction = db.sync_session.get_transaction()
    refuse_commits(db, HandlerEndedTransaction)
    try:
        await await_application(call, timeout_s, is_closing)
    finally:
        refuse_commits(db, None)
    if db.sync_session.get_transaction() is not transaction or transaction_was_ended(db):
        raise HandlerEndedTransaction
