"""Declare which function of the application handles which event types."""

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from inspect import iscoroutinefunction
from typing import Final, Literal, get_args

import structlog
from relaybox_types.envelope import EventEnvelope
from relaybox_types.naming import check_past_name
from sqlalchemy.ext.asyncio import AsyncSession

from relaybox.consumers._errors import SubscriptionInvalid
from relaybox.events import EventType
from relaybox.telemetry import traceback_of

__all__ = (
    "EventTransaction",
    "Handler",
    "JointHandler",
    "OnFailure",
    "Order",
    "ParkedHandler",
    "Subscription",
    "check_reading",
    "one_group",
    "subscribe",
)

_GROUP_CHARACTERS_MAX: Final = 200
#: One day. The limit must stay below 24 days, the highest idle limit of a transaction in PostgreSQL.
_HANDLER_S_MAX: Final = 86_400.0
_log: Final = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class EventTransaction:
    """The event of one call of a handler, and a session whose transaction Relaybox commits.

    What the handler writes through ``db`` takes effect once or not at all, because the same transaction
    records that the group has processed the event (G40). Several events may share the transaction. If a
    handler raises, Relaybox rolls back and, unless that was the last attempt, calls the handler again in a
    new transaction.
    """

    db: AsyncSession
    event: EventEnvelope
    _after_commit: list[Callable[[], None]] = field(default_factory=list[Callable[[], None]], repr=False)

    def after_commit(self, action: Callable[[], None]) -> None:
        """Call *action* after the transaction has committed; the call is lost if the process dies first.

        Raises:
            SubscriptionInvalid: *action* is a coroutine function, which would never run.
        """
        if iscoroutinefunction(action):
            raise SubscriptionInvalid("after_commit needs a plain function, not a coroutine function")
        self._after_commit.append(action)

    def run_commit_actions(self) -> None:
        """Call each action that was passed to :meth:`after_commit`; Relaybox calls this method after COMMIT.

        If an action raises, the error is only logged, because the event has taken effect already.
        """
        for action in self._after_commit:
            try:
                action()
            except Exception as error:  # noqa: BLE001 - an application's action must not end the consumer
                _log.error("action after commit failed", traceback=traceback_of(error))


#: Handles one event. It may run again after a failure, so it must only read and write through the
#: transaction's session: other effects are not rolled back.
Handler = Callable[[EventEnvelope, EventTransaction], Awaitable[None]]
#: Handles several events of different keys, which share one transaction.
JointHandler = Callable[[Sequence[EventTransaction]], Awaitable[None]]
#: Is called with an event that is being parked, its last failure, and the transaction that parks the event.
ParkedHandler = Callable[[EventEnvelope, BaseException, EventTransaction], Awaitable[None]]
#: What follows the last failed attempt: park the message and go on, or end the consumer without committing
#: the offset of the message.
OnFailure = Literal["park", "stop"]
#: Whether later messages of a key wait behind a dead letter (``"key"``), or are processed (``"none"``).
Order = Literal["key", "none"]


@dataclass(frozen=True, kw_only=True)
class Subscription:
    """A handler, its event types, and the consumer group that shares the work.

    *group* is also stored with each processed event, in the column ``consumer`` of ``consumed_events``. So
    the group processes an event once, even if the offsets of the group are reset.
    """

    event_types: frozenset[str]
    group: str
    handler: Handler
    #: Declared types among *event_types*: their events reach the handler with the declared version.
    declared: tuple[EventType, ...] = ()
    #: After the last attempt: park the message as a dead letter, or end the consumer.
    on_failure: OnFailure = "park"
    #: Whether later messages of a key wait behind a dead letter of that key.
    order: Order = "key"
    #: The handler's transaction is rolled back after this time, and the attempt counts as failed.
    handler_timeout_s: float = 25.0
    #: Events that may share one transaction: of different keys, or replayed dead letters of one key.
    transaction_events_max: int = 1
    #: Called in the transaction that parks an event; None: nothing is called.
    on_parked: ParkedHandler | None = None
    #: Called once for several events that share a transaction; None: *handler* is called for each of them.
    joint_handler: JointHandler | None = None

    async def __call__(self, event: EventEnvelope, unit: EventTransaction) -> None:
        """Call the handler; the caller is responsible for the transaction, the time limit and the retries."""
        await self.handler(event, unit)


def subscribe(
    *event_types: str | EventType,
    group: str,
    naming: Callable[[str], str] = check_past_name,
    on_failure: OnFailure = "park",
    order: Order = "key",
    handler_timeout_s: float = 25.0,
    transaction_events_max: int = 1,
    on_parked: ParkedHandler | None = None,
) -> Callable[[Handler], Subscription]:
    """Declare the decorated function as *group*'s handler of *event_types*.

    There is no global registry: pass the result to a :class:`~relaybox.consumers.Consumer`.

    Args:
        event_types: Names of events or their declarations, at least one. The payload of a declared type is
            upcast to its declared version; a name stands for events of any version, which stay as they are.
        group: Name of the consumer group, 1 to 200 printable characters.
        naming: Checks that a name follows the convention of the events' domain, and returns the name.
        on_failure: What follows the last attempt: the fourth, or the first for a message that cannot be read.
            ``"park"`` records the message as a dead letter and goes on. ``"stop"`` ends the consumer and does
            not commit the message's offset, so a restarted consumer begins with this message.
        order: ``"key"`` parks the later messages of the key behind a dead letter, ``"none"`` processes them.
        handler_timeout_s: Seconds, at most 86,400, after which an attempt is rolled back and counts as
            failed. If this time plus 5 s exceeds the time for which PostgreSQL lets a transaction be idle
            (``POSTGRES_IDLE_IN_TRANSACTION_TIMEOUT_MS``, 30 s by default), each call of the handler costs
            one more round trip, which raises PostgreSQL's limit.
        transaction_events_max: How many events of different keys may share one transaction, which is faster.
            If one of them fails, all are rolled back and each is tried in a transaction of its own. Replayed
            dead letters of one key may share a transaction too. Their limit is the lowest of all
            subscriptions of the consumer, and no letter joins after 0.25 s, because the transaction holds
            locks.
        on_parked: Called in the transaction that parks an event of this subscription, for example to record
            the failure in the application; not called for an event that is parked only because an earlier
            message of its key is parked. If the function fails with a database error, the transaction is
            repeated for about 26 s. After that, or after any other error, the event is parked without the
            function's changes.

    Returns:
        A decorator that turns the handler into a :class:`Subscription`.

    Raises:
        EventNameInvalid: An event type breaks *naming* (G09).
        SubscriptionInvalid: No event type, a group name that is empty, too long or not printable, or an
            argument outside of its range.
    """
    if not event_types:
        raise SubscriptionInvalid("a subscription needs at least one event type")
    if not 1 <= len(group) <= _GROUP_CHARACTERS_MAX or not group.isprintable():
        raise SubscriptionInvalid(
            f"group {group[:40]!r} must have 1 to {_GROUP_CHARACTERS_MAX} printable characters"
        )
    if on_failure not in get_args(OnFailure) or order not in get_args(Order):
        raise SubscriptionInvalid(
            f"on_failure must be 'park' or 'stop' and order 'key' or 'none', not {on_failure!r} and {order!r}"
        )
    if transaction_events_max < 1 or not 0 < handler_timeout_s <= _HANDLER_S_MAX:
        raise SubscriptionInvalid(
            f"transaction_events_max must be at least 1 and handler_timeout_s above 0 and at most "
            f"{_HANDLER_S_MAX:g}, not {transaction_events_max} and {handler_timeout_s:g}"
        )
    declared = tuple(one for one in event_types if isinstance(one, EventType))
    types = frozenset(naming(one.name if isinstance(one, EventType) else one) for one in event_types)

    def declare(handler: Handler) -> Subscription:
        return Subscription(
            event_types=types,
            group=group,
            handler=handler,
            declared=declared,
            on_failure=on_failure,
            order=order,
            handler_timeout_s=handler_timeout_s,
            transaction_events_max=transaction_events_max,
            on_parked=on_parked,
        )

    return declare


def check_reading(topics: Sequence[str], concurrency: int, message_bytes_max: int) -> None:
    """Check the topics and the limits that are passed to a consumer.

    Raises:
        SubscriptionInvalid: *topics* is empty or a string, or a limit is below 1.
    """
    if isinstance(topics, str) or not topics:
        raise SubscriptionInvalid(f"topics must be a list of at least one topic, not {topics!r}")
    if concurrency < 1 or message_bytes_max < 1:
        raise SubscriptionInvalid(
            f"concurrency and message_bytes_max must be at least 1, not {concurrency} and {message_bytes_max}"
        )


def one_group(subscriptions: Sequence[Subscription]) -> str:
    """Return the one group of all *subscriptions*.

    Raises:
        SubscriptionInvalid: There is no subscription, there are several groups, or one event type has two
            handlers.
    """
    groups = sorted({subscription.group for subscription in subscriptions})
    if len(groups) != 1:
        raise SubscriptionInvalid(
            f"a consumer needs subscriptions of exactly one group, not of {groups or 'none'}; "
            "create one consumer per group"
        )
    handlers = Counter(name for subscription in subscriptions for name in subscription.event_types)
    duplicates = ", ".join(sorted(name for name, times in handlers.items() if times > 1))
    if duplicates:
        raise SubscriptionInvalid(
            f"{duplicates} has two handlers in group {groups[0]!r}, but a group processes an event "
            "in one transaction; "
            "combine them in one function, or give the second handler another group"
        )
    return groups[0]
