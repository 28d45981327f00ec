"""Await handlers and other functions of the application, so that no exception of them ends the consumer."""

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

__all__ = ("await_application", "await_in_transaction", "log_call", "place_of")

_log: Final = structlog.stdlib.get_logger(__name__)


def log_call(group: str, message: Message, event_id: UUID) -> None:
    """Log at level DEBUG that the handler of *message* is called next.

    If the handler ends the process, the last of these lines show which message it was.
    """
    if logging.getLogger(__name__).isEnabledFor(logging.DEBUG):
        _log.debug("handler called", **place_of(group, message), event_id=str(event_id))


def place_of(group: str, message: Message) -> dict[str, str | int]:
    """Return the fields of a log entry that name *group* and the topic, partition and offset of *message*."""
    topic, partition = message.partition
    return {"group": group, "topic": topic, "partition": partition, "offset": message.offset}


async def await_application(call: Awaitable[None], timeout_s: float, is_closing: Callable[[], bool]) -> None:
    """Await a function of the application, and turn exceptions that would end the consumer into errors.

    Args:
        call: The awaitable that the call of the function has returned.
        timeout_s: Seconds after which the function is cancelled.
        is_closing: Returns whether the consumer is stopping; if so, a cancellation came from the consumer.

    Raises:
        Exception: An error that the function raised, unchanged.
        CancelledError: The consumer is stopping and has cancelled the function.
        HandlerTimedOut: The function did not end in *timeout_s* seconds.
        HandlerAborted: The function raised SystemExit, KeyboardInterrupt or CancelledError, or cancelled the
            asyncio task in which it runs.
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

    A commit by the function is refused before it takes effect. If it took effect and the function failed
    afterwards, the event would be recorded as processed although only a part of its effect is stored.

    Args:
        db: The session of the function.
        call: The awaitable that the call of the function has returned.
        timeout_s: Seconds after which the function is cancelled.
        is_closing: Returns whether the consumer is stopping; if so, a cancellation came from the consumer.

    Raises:
        HandlerEndedTransaction: The function tried to commit the session, rolled it back or closed it.
        Exception, CancelledError, HandlerTimedOut, HandlerAborted: See :func:`await_application`.
    """
    transaction = db.sync_session.get_transaction()
    refuse_commits(db, HandlerEndedTransaction)
    try:
        await await_application(call, timeout_s, is_closing)
    finally:
        refuse_commits(db, None)
    if db.sync_session.get_transaction() is not transaction or transaction_was_ended(db):
        raise HandlerEndedTransaction
