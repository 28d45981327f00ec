"""Errors of consumers and of their messages.

::

    RelayboxError
    └── ConsumerError
        ├── SubscriptionInvalid   declared or combined wrongly; raised before the consumer runs
        ├── EnvelopeInvalid       a message is not an event
        ├── MessageTooLarge       a message is larger than the consumer reads
        ├── HandlerTimedOut       a handler did not end in time
        ├── HandlerAborted        a handler raised SystemExit, KeyboardInterrupt or CancelledError
        ├── HandlerEndedTransaction   a handler tried to commit, or rolled back or closed, its session
        ├── HandlerEndedProcess   a handler ended the process several times
        ├── HandlerMissing        a letter's event type has no handler any more
        ├── KeyBlocked            an earlier message of the key is parked
        ├── ParkedByOperator      an operator requested that the message be parked
        ├── HandlerFailed         a handler failed on every attempt, and its subscription stops the consumer
        ├── KafkaRefused          Kafka rejects this consumer
        └── KafkaClientHung       the Kafka client lost its group, and could not be closed
"""

from uuid import UUID

from relaybox.errors import RelayboxError

__all__ = (
    "ConsumerError",
    "EnvelopeInvalid",
    "HandlerAborted",
    "HandlerEndedProcess",
    "HandlerEndedTransaction",
    "HandlerFailed",
    "HandlerMissing",
    "HandlerTimedOut",
    "KafkaClientHung",
    "KafkaRefused",
    "KeyBlocked",
    "MessageTooLarge",
    "ParkedByOperator",
    "SubscriptionInvalid",
)


class ConsumerError(RelayboxError):
    """Base of the errors of this package."""

    error_code = "CONSUMER_ERROR"


class SubscriptionInvalid(ConsumerError):
    """Raised when a subscription cannot work: no event type, several groups, two handlers of a type."""

    error_code = "SUBSCRIPTION_INVALID"


class EnvelopeInvalid(ConsumerError):
    """Raised when a message is not an event, or its ``ce_type`` header names another type.

    The error never shows the message's content.
    """

    error_code = "ENVELOPE_INVALID"

    def __init__(self, *, group: str, topic: str, partition: int, offset: int, reason: str) -> None:
        super().__init__(f"{topic}[{partition}]@{offset} is not an event: {reason}; read by {group}")
        self.topic, self.partition, self.offset = topic, partition, offset


class MessageTooLarge(ConsumerError):
    """Raised when a message has more bytes than the consumer passes to a handler."""

    error_code = "MESSAGE_TOO_LARGE"

    def __init__(self, *, topic: str, partition: int, offset: int, bytes_: int, bytes_max: int) -> None:
        super().__init__(
            f"{topic}[{partition}]@{offset} has {bytes_:,} bytes, more than {bytes_max:,}; "
            "raise message_bytes_max of the consumer, then replay the dead letter"
        )


class HandlerTimedOut(ConsumerError):
    """Raised when a handler did not end within its subscription's ``handler_timeout_s``."""

    error_code = "HANDLER_TIMED_OUT"

    def __init__(self, timeout_s: float) -> None:
        super().__init__(f"the handler did not end within {timeout_s:g} s; its transaction was rolled back")


class HandlerAborted(ConsumerError):
    """Raised for a handler that raised an exception meant to end a process or a task."""

    error_code = "HANDLER_ABORTED"

    def __init__(self, error: BaseException) -> None:
        super().__init__(f"the handler raised {type(error).__name__}; its transaction was rolled back")


class HandlerEndedTransaction(ConsumerError):
    """Raised when a handler tried to commit, or rolled back or closed, the session of its transaction.

    That transaction contains the record that the group has processed the event. After a rollback the record
    is missing, so a redelivered event would take effect again. A commit is refused before it takes effect: a
    handler that failed afterwards would have taken effect in part.
    """

    error_code = "HANDLER_ENDED_TRANSACTION"

    def __init__(self) -> None:
        super().__init__(
            "the handler tried to commit, or rolled back or closed, its session, which only the consumer may "
            "do; execute a statement that may fail in a savepoint: async with unit.db.begin_nested()"
        )


class HandlerEndedProcess(ConsumerError):
    """Recorded for a message in whose handler or ``on_parked`` several processes ended, one after another."""

    error_code = "HANDLER_ENDED_PROCESS"

    def __init__(self, processes: int) -> None:
        super().__init__(
            f"at least {processes} processes ended during the handler (or on_parked) of this message; look "
            "for a crash in a C library, memory that ran out or a call of os._exit, then replay the letter"
        )
        self.processes = processes


class HandlerMissing(ConsumerError):
    """Raised for a replayed dead letter whose event type has no handler in the group any more."""

    error_code = "HANDLER_MISSING"

    def __init__(self, *, group: str, event_type: str) -> None:
        super().__init__(
            f"group {group} has no handler of {event_type}; subscribe again, or discard the dead letter"
        )


class KeyBlocked(ConsumerError):
    """Recorded for a message that was parked because an earlier message of its key is parked."""

    error_code = "KEY_BLOCKED"

    def __init__(self) -> None:
        super().__init__("an earlier message of this key is parked")


class ParkedByOperator(ConsumerError):
    """Recorded for a message that an operator asked the consumers of its group to park."""

    error_code = "PARKED_BY_OPERATOR"

    def __init__(self, *, by: str, reason: str) -> None:
        super().__init__(f"parked at the request of {by}: {reason}")


class HandlerFailed(ConsumerError):
    """Raised when a handler with ``on_failure="stop"`` failed on every attempt.

    The cause is the last failure. The event took no effect and its offset is not committed: after a restart
    the consumer begins with it.
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


class KafkaClientHung(ConsumerError):
    """Raised when several Kafka clients of a consumer lost their group and could not be closed.

    Each of them keeps a thread and memory, so the consumer ends, and its supervisor starts another process.
    """

    error_code = "KAFKA_CLIENT_HUNG"

    def __init__(self, *, group: str, clients: int) -> None:
        super().__init__(
            f"{clients} Kafka clients of group {group} found no coordinator and could not be closed; "
            "restart the process, and check the brokers' log"
        )
