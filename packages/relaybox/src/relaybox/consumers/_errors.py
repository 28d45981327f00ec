"""What ends a consumer.

::

    RelayboxError
    └── ConsumerError
        ├── SubscriptionInvalid   declared or composed wrongly; raised before anything runs
        ├── EnvelopeInvalid       a message that is no event
        ├── HandlerFailed         a handler that failed every time
        └── KafkaRefused          the broker will not have this consumer
"""

from uuid import UUID

from relaybox.errors import RelayboxError

__all__ = ("ConsumerError", "EnvelopeInvalid", "HandlerFailed", "KafkaRefused", "SubscriptionInvalid")


class ConsumerError(RelayboxError):
    """Base of the errors of this package."""

    error_code = "CONSUMER_ERROR"


class SubscriptionInvalid(ConsumerError):
    """Raised when a subscription cannot work: no event type, several groups, a type handled twice."""

    error_code = "SUBSCRIPTION_INVALID"


class EnvelopeInvalid(ConsumerError):
    """Raised when a message is not an event, or not the one its ``ce_type`` header tells of.

    The consumer stops in front of it: nobody can know what skipping it would lose. The message's
    content is never shown.
    """

    error_code = "ENVELOPE_INVALID"

    def __init__(self, *, group: str, topic: str, partition: int, offset: int, reason: str) -> None:
        super().__init__(
            f"{topic}[{partition}]@{offset} is not an event: {reason}. Consumer {group} stopped in front "
            f"of it. If it may be skipped, set the group's offset of that partition to {offset + 1} "
            "and start again"
        )
        self.topic, self.partition, self.offset = topic, partition, offset


class HandlerFailed(ConsumerError):
    """Raised when a handler failed on every attempt; its cause is the last failure.

    Nothing of the event took effect and its offset is not committed: after a restart it comes first.
    """

    error_code = "HANDLER_FAILED"

    def __init__(
        self, *, group: str, topic: str, partition: int, offset: int, event_id: UUID, attempts: int
    ) -> None:
        super().__init__(
            f"consumer {group} failed {attempts} times on event {event_id} at {topic}[{partition}]@{offset} "
            "and stopped in front of it. Mend the cause and start again"
        )
        self.topic, self.partition, self.offset, self.event_id = topic, partition, offset, event_id


class KafkaRefused(ConsumerError):
    """Raised when Kafka refuses the consumer for good: rights, or a configuration it does not accept."""

    error_code = "KAFKA_REFUSED"
