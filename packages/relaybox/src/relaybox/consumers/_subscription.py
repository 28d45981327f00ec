"""What an application declares: one function that handles some types of events."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from relaybox_types.envelope import EventEnvelope
from relaybox_types.naming import check_past_name
from sqlalchemy.ext.asyncio import AsyncSession

from relaybox.consumers._errors import SubscriptionInvalid

__all__ = ("EventTransaction", "Handler", "Subscription", "subscribe")

_GROUP_CHARACTERS_MAX: Final = 200


@dataclass(frozen=True, kw_only=True)
class EventTransaction:
    """The transaction of one event: everything a handler writes through ``db`` counts once, or not at all.

    The record that this consumer has seen the event is in it already (G40). The transaction is
    Relaybox's to commit; a handler that raises rolls it back, and is called again in a new one.
    """

    db: AsyncSession
    event: EventEnvelope
    _after_commit: list[Callable[[], None]] = field(default_factory=list[Callable[[], None]], repr=False)

    def after_commit(self, action: Callable[[], None]) -> None:
        """Call *action* once the transaction has committed; a hint, lost if the process dies in between."""
        self._after_commit.append(action)

    def announce_commit(self) -> None:
        """Call what :meth:`after_commit` was given; for whoever owns the transaction."""
        for action in self._after_commit:
            action()


#: Handles one event. It may run again after a failure, and must do nothing but read and write
#: through the unit's session: what it does elsewhere is not undone.
Handler = Callable[[EventEnvelope, EventTransaction], Awaitable[None]]


@dataclass(frozen=True, kw_only=True)
class Subscription:
    """A handler, the event types it is for, and the group that shares the work.

    *group* is also the consumer's name in ``consumed_events``: what a group has done, it never does
    again, whatever becomes of its offsets.
    """

    event_types: frozenset[str]
    group: str
    handler: Handler

    async def __call__(self, event: EventEnvelope, unit: EventTransaction) -> None:
        """Call the handler, as if the decorator were not there."""
        await self.handler(event, unit)


def subscribe(
    *event_types: str, group: str, naming: Callable[[str], str] = check_past_name
) -> Callable[[Handler], Subscription]:
    """Declare the decorated function as *group*'s handler of *event_types*, whose domain declares *naming*.

    Nothing is registered anywhere: give the result to a :class:`~relaybox.consumers.Consumer`.

    Raises:
        EventNameInvalid: an event type breaks *naming* (G09).
        SubscriptionInvalid: no event type, or a group name that is empty or too long.
    """
    if not event_types:
        raise SubscriptionInvalid("a subscription without an event type hears nothing; name at least one")
    if not 1 <= len(group) <= _GROUP_CHARACTERS_MAX:
        raise SubscriptionInvalid(f"group {group[:40]!r} must have 1 to {_GROUP_CHARACTERS_MAX} characters")
    types = frozenset(naming(name) for name in event_types)

    def declare(handler: Handler) -> Subscription:
        return Subscription(event_types=types, group=group, handler=handler)

    return declare
