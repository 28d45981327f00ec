"""Errors of consumers and of their messages.

::

    RelayboxError
    └── ConsumerError
        ├── SubscriptionInvalid   a subscription, or an argument of a consumer, cannot work
        ├── EnvelopeInvalid       a message is not an event
        ├── MessageTooLarge       a message is larger than message_bytes_max of the consumer
        ├── HandlerTimedOut       a handler did not end in time
        ├── HandlerAborted        a handler raised SystemExit, KeyboardInterrupt or CancelledError
        ├── HandlerEndedTransaction   a handler tried to commit its session, rolled it back or closed it
        ├── HandlerEndedProcess   several processes ended while they called the handler of one message
        ├── HandlerMissing        the event type of a replayed dead letter has no handler any more
        ├── KeyBlocked            an earlier message of the key is parked
        ├── ParkedByOperator      an operator requested that the message be parked
        ├── HandlerFailed         a handler failed on every attempt, and its subscription stops the consumer
        ├── KafkaRefused          Kafka rejects this consumer
        └── KafkaClientHung       several Kafka clients found no coordinator or hung, and could not be closed
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
    """Raised when a subscription, or an argument of a consumer or of ``after_commit``, cannot work.

    Examples: no event type, subscriptions of several groups, two handlers of one event type.
    """

    error_code = "SUBSCRIPTION_INVALID"


class EnvelopeInvalid(ConsumerError):
    """Raised when a message is not an event, or the type of its CloudEvent is not its ``event_type``.

    The error never shows the message's content, which may be private.
    """

    error_code = "ENVELOPE_INVALID"

    def __init__(self, *, group: str, topic: str, partition: int, offset: int, reason: str) -> None:
        super().__init__(
            f"the message {topic}[{partition}]@{offset}, read by {group}, is not an event: {reason}; repair "
            "the program that wrote the message"
        )
        self.topic, self.partition, self.offset = topic, partition, offset


class MessageTooLarge(ConsumerError):
    """Raised when a message is larger than ``message_bytes_max`` of the consumer; no handler is called."""

    error_code = "MESSAGE_TOO_LARGE"

    def __init__(self, *, topic: str, partition: int, offset: int, bytes_: int, bytes_max: int) -> None:
        super().__init__(
            f"{topic}[{partition}]@{offset} is {bytes_:,} bytes, over the limit of {bytes_max:,} "
            "(key, value and headers); raise message_bytes_max of the consumer, then replay the dead letter, "
            "if there is one"
        )


class HandlerTimedOut(ConsumerError):
    """Raised when a handler or ``on_parked`` did not end within ``handler_timeout_s`` of its subscription."""

    error_code = "HANDLER_TIMED_OUT"

    def __init__(self, timeout_s: float) -> None:
        super().__init__(
            f"the handler (or on_parked) did not end within {timeout_s:g} s; its transaction was rolled "
            "back; make it faster, or raise handler_timeout_s of the subscription"
        )


class HandlerAborted(ConsumerError):
    """Raised when a handler, ``on_parked`` or an upcaster raised an exception that would end the consumer.

    These exceptions are SystemExit, KeyboardInterrupt and CancelledError. The consumer replaces each of them
    by this error, which counts as a failed attempt.
    """

    error_code = "HANDLER_ABORTED"

    def __init__(self, error: BaseException) -> None:
        super().__init__(
            f"the handler, on_parked or an upcaster raised {type(error).__name__}; nothing was committed; "
            "do not call sys.exit there, and catch CancelledError of awaited tasks"
        )


class HandlerEndedTransaction(ConsumerError):
    """Raised when a handler or ``on_parked`` tried to commit its session, rolled it back or closed it.

    The transaction of the session contains the record that the group has processed the event. After a
    rollback the record is missing, so a redelivered event would take effect again. A commit is refused before
    it takes effect, because a handler that fails after the commit would have taken effect in part.
    """

    error_code = "HANDLER_ENDED_TRANSACTION"

    def __init__(self) -> None:
        super().__init__(
            "the handler tried to commit, or rolled back or closed, its session, which only the consumer may "
            "do; use a savepoint for a statement that may fail: async with unit.db.begin_nested()"
        )


class HandlerEndedProcess(ConsumerError):
    """Raised instead of another call of a handler, after several processes have ended during its calls.

    *processes* counts the processes that ended, one after another, in the handler or in ``on_parked`` of the
    same message. The first of them is not counted, because consumers begin to count after a crash.
    """

    error_code = "HANDLER_ENDED_PROCESS"

    def __init__(self, processes: int) -> None:
        super().__init__(
            f"at least {processes} processes ended during the handler (or on_parked) of this message; look "
            "for a crash in a C library, memory that ran out or a call of os._exit; then replay the dead "
            "letter or, with on_failure='stop', restart the consumer"
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
    """Recorded as the error of a message that was parked because an earlier message of its key is parked."""

    error_code = "KEY_BLOCKED"

    def __init__(self) -> None:
        super().__init__("an earlier message of this key is parked; replay or discard that dead letter first")


class ParkedByOperator(ConsumerError):
    """Raised for a message that an operator has requested to park; its handler is not called."""

    error_code = "PARKED_BY_OPERATOR"

    def __init__(self, *, by: str, reason: str) -> None:
        super().__init__(f"parked at the request of {by}: {reason}")


class HandlerFailed(ConsumerError):
    """Raised when a handler with ``on_failure="stop"`` failed on every attempt.

    ``__cause__`` is the last failure. The event took no effect, and the offset of its message is not
    committed, so a restarted consumer begins with this message.
    """

    error_code = "HANDLER_FAILED"

    def __init__(
        self, *, group: str, topic: str, partition: int, offset: int, event_id: UUID, attempts: int
    ) -> None:
        super().__init__(
            f"the handler of group {group} failed {attempts} times for event {event_id} at "
            f"{topic}[{partition}]@{offset}, so the consumer stopped and did not commit this offset; repair "
            "the cause and restart the consumer"
        )
        self.topic, self.partition, self.offset, self.event_id = topic, partition, offset, event_id


class KafkaRefused(ConsumerError):
    """Raised when Kafka rejects the consumer or the Kafka client fails, and waiting cannot change that.

    Examples: a missing permission, a wrong certificate, a group whose members use another protocol.
    """

    error_code = "KAFKA_REFUSED"


class KafkaClientHung(ConsumerError):
    """Raised when several Kafka clients of a consumer failed one after another and could not be closed.

    A client fails if it finds no coordinator of its group, or if a poll hangs. Each client that cannot be
    closed keeps a thread and memory. So the consumer ends, and a supervisor should restart the process.
    """

    error_code = "KAFKA_CLIENT_HUNG"

    def __init__(self, *, group: str, clients: int) -> None:
        super().__init__(
            f"{clients} Kafka clients of group {group} found no coordinator or hung, and could not "
            "be closed; restart the process, and check the brokers' log"
        )
