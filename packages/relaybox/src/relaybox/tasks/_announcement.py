"""Announce tasks to runners in other processes."""

from collections.abc import Iterable

from sqlalchemy.ext.asyncio import AsyncSession

from relaybox.outbox import notify_on_commit

__all__ = ("announce_tasks", "key_of")


def announce_tasks(db: AsyncSession, task_types: Iterable[str]) -> None:
    """Let runners that listen claim tasks of *task_types* when *db* commits, instead of at their next poll.

    Call this in the transaction that creates or wakes the tasks. Announcements are sent only if a
    :class:`relaybox.outbox.Notifier` is attached to the sessions. If an announcement is not sent or is lost,
    the runners find the tasks at their next poll.
    """
    for task_type in task_types:
        notify_on_commit(db, key_of(task_type))


def key_of(task_type: str) -> str:
    """Return the key that announces tasks of *task_type*; its commas become semicolons.

    In a notification, commas separate the keys.
    """
    return f"task:{task_type.replace(',', ';')}"
