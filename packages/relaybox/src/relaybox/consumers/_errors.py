"""Errors that end a consumer.

::

    RelayboxError
    └── ConsumerError
        ├── SubscriptionInvalid   declared or combined wrongly; raised before the consumer runs
        ├── EnvelopeInvalid       a message is not an event
        ├── HandlerFailed         a handler failed on every attempt
        └── KafkaRefused          Kafka rejects this consumer
"""

from uuid import UUID

from relaybox.errors import RelayboxError

__all__ = ("ConsumerError", "EnvelopeInvalid", "HandlerFailed", "KafkaRefused", "SubscriptionInvalid")


class ConsumerError(RelayboxError):
    """Base of the errors of this package."""

    error_code = "CONSUMER_ERROR"


class SubscriptionInvalid(ConsumerError):
    """Raised when a subscription cannot work: no event type, several groups, two handlers of a type."""

    error_code = "SUBSCRIPTION_INVALID"


class EnvelopeInvalid(ConsumerError):
    """Raised when a message is not an event, or its ``ce_type`` header names another type.

    The consumer stops before this message, because skipping it could lose an event. The error never shows
    the message's content.
    """

    error_code = "ENVELOPE_INVALID"

    def __init__(self, *, group: str, topic: str, partition: int, offset: int, reason: str) -> None:
        super().__init__(
            f"{topic}[{partition}]@{offset} is not an event: {reason}. Consumer {group} stopped before it. "
            f"To skip it, set the group's offset of that partition to {offset + 1} and restart the consumer"
        )
        self.topic, self.partition, self.offset = topic, partition, offset


class HandlerFailed(ConsumerError):
    """Raised when a handler failed on every attempt; its cause is the last failure.

    The event took no effect and its offset is not committed: after a restart the consumer begins with it.
    """

    error_code = "HANDLER_FAILED"

    def __init__(
        self, *, group: str, topic: str, partition: int, offset: int, event_id: UUID, attempts: int
    ) -> None:
        super().__init__(
            f"consumer {group} failed {attempts} times on event {event_id} at {topic}[{partition}]@{offset} "
            "and stopped before it. Repair the cause and restart the consumer"
        )
        self.topic, self.partition, self.offset, self.event_id = topic, partition, offset, event_id


class KafkaRefused(ConsumerError):
    """Raised when Kafka rejects the consumer: a permission is missing, or its configuration is wrong."""

    error_code = "KAFKA_REFUSED"
