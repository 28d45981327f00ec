"""Kafka to handlers: each event's effect once in the database, whatever is delivered again.

Declare a handler with :func:`subscribe`, give it to a :class:`Consumer`, and ``await consumer.run()``.
"""

from relaybox.consumers._consumer import Consumer
from relaybox.consumers._errors import (
    ConsumerError,
    EnvelopeInvalid,
    HandlerFailed,
    KafkaRefused,
    SubscriptionInvalid,
)
from relaybox.consumers._handling import ConsumerMoment, GiveUp, Retry, WaitForDatabase, next_step
from relaybox.consumers._message import read_event
from relaybox.consumers._statistics import ConsumerStatistics
from relaybox.consumers._subscription import EventTransaction, Handler, Subscription, subscribe

__all__ = (
    "Consumer",
    "ConsumerError",
    "ConsumerMoment",
    "ConsumerStatistics",
    "EnvelopeInvalid",
    "EventTransaction",
    "GiveUp",
    "Handler",
    "HandlerFailed",
    "KafkaRefused",
    "Retry",
    "Subscription",
    "SubscriptionInvalid",
    "WaitForDatabase",
    "next_step",
    "read_event",
    "subscribe",
)
