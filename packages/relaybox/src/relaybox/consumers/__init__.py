"""Consume events from Kafka: each event takes effect once in the database, even if it is delivered again.

Declare a handler with :func:`subscribe`, give it to a :class:`Consumer`, and ``await consumer.run()``.
"""

from relaybox.consumers._consumer import Consumer
from relaybox.consumers._errors import (
    ConsumerError,
    EnvelopeInvalid,
    HandlerAborted,
    HandlerEndedProcess,
    HandlerFailed,
    HandlerMissing,
    HandlerTimedOut,
    KafkaClientHung,
    KafkaRefused,
    KeyBlocked,
    MessageTooLarge,
    ParkedByOperator,
    SubscriptionInvalid,
)
from relaybox.consumers._message import read_event
from relaybox.consumers._policy import GiveUp, Retry, WaitForDatabase, decide_after_failure
from relaybox.consumers._statistics import (
    ConsumerCollector,
    ConsumerSignal,
    ConsumerStatistics,
    LetterCounts,
    PartitionLag,
    check_consumer,
)
from relaybox.consumers._stepping import MessageOutcome, MessageStepper, ProcessedMessage
from relaybox.consumers._subscription import (
    EventTransaction,
    Handler,
    JointHandler,
    OnFailure,
    Order,
    ParkedHandler,
    Subscription,
    subscribe,
)

__all__ = (
    "Consumer",
    "ConsumerCollector",
    "ConsumerError",
    "ConsumerSignal",
    "ConsumerStatistics",
    "EnvelopeInvalid",
    "EventTransaction",
    "GiveUp",
    "Handler",
    "HandlerAborted",
    "HandlerEndedProcess",
    "HandlerFailed",
    "HandlerMissing",
    "HandlerTimedOut",
    "JointHandler",
    "KafkaClientHung",
    "KafkaRefused",
    "KeyBlocked",
    "LetterCounts",
    "MessageOutcome",
    "MessageStepper",
    "MessageTooLarge",
    "OnFailure",
    "Order",
    "ParkedByOperator",
    "ParkedHandler",
    "PartitionLag",
    "ProcessedMessage",
    "Retry",
    "Subscription",
    "SubscriptionInvalid",
    "WaitForDatabase",
    "check_consumer",
    "decide_after_failure",
    "read_event",
    "subscribe",
)
