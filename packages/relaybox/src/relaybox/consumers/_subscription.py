"""Declare which function of the application handles which event types."""

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
    """The transaction of one event: what the handler writes through ``db`` takes effect once or not at all.

    The record that this group has processed the event is part of it (G40). Relaybox commits the
    transaction. If the handler raises, Relaybox rolls back and calls it again in a new transaction.
    """

    db: AsyncSession
    event: EventEnvelope
    _after_commit: list[Callable[[], None]] = field(default_factory=list[Callable[[], None]], repr=False)

    def after_commit(self, action: Callable[[], None]) -> None:
        """Call *action* after the transaction has committed; the call is lost if the process dies first."""
        self._after_commit.append(action)

    def run_commit_actions(self) -> None:
        """Call each action of :meth:`after_commit`; the owner of the transaction calls this after COMMIT."""
        for action in self._after_commit:
            action()


#: Handles one event. It may run again after a failure, so it must only read and write through the
#: transaction's session: other effects are not rolled back.
Handler = Callable[[EventEnvelope, EventTransaction], Awaitable[None]]


@dataclass(frozen=True, kw_only=True)
class Subscription:
    """A handler, its event types, and the consumer group that shares the work.

    *group* is also the consumer's name in ``consumed_events``: a group processes an event once, even if
    its offsets are reset.
    """

    event_types: frozenset[str]
    group: str
    handler: Handler

    async def __call__(self, event: EventEnvelope, unit: EventTransaction) -> None:
        """Call the handler directly."""
        await self.handler(event, unit)


def subscribe(
    *event_types: str, group: str, naming: Callable[[str], str] = check_past_name
) -> Callable[[Handler], Subscription]:
    """Declare the decorated function as *group*'s handler of *event_types*.

    There is no global registry: pass the result to a :class:`~relaybox.consumers.Consumer`.

    Args:
        event_types: Names of events, at least one.
        group: Name of the consumer group, 1 to 200 characters.
        naming: Checks a name by the convention of the events' domain, and returns it.

    Raises:
        EventNameInvalid: An event type breaks *naming* (G09).
        SubscriptionInvalid: No event type, or a group name that is empty or too long.
    """
    if not event_types:
        raise SubscriptionInvalid("a subscription needs at least one event type")
    if not 1 <= len(group) <= _GROUP_CHARACTERS_MAX:
        raise SubscriptionInvalid(f"group {group[:40]!r} must have 1 to {_GROUP_CHARACTERS_MAX} characters")
    types = frozenset(naming(name) for name in event_types)

    def declare(handler: Handler) -> Subscription:
        return Subscription(event_types=types, group=group, handler=handler)

    return declare
