"""Publish parked messages to the topic ``DEAD_LETTER_TOPIC``, through the outbox."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Final

from sqlalchemy.ext.asyncio import AsyncSession

from relaybox.consumers._errors import SubscriptionInvalid
from relaybox.consumers._message import Headers, Message
from relaybox.outbox import RECORD_ID_HEADER, OutboxSettings, RawRecord, append_record
from relaybox.settings import DeadLetterSettings, load_settings

__all__ = ("DeadLetterTopic", "dead_letter_topic")

#: Prefix of the headers that describe why and where the message was parked.
_PREFIX: Final = "dead_letter_"
#: Header that names the parts of the message that were left out because the record would be too large.
_OMITTED: Final = "dead_letter_omitted"


class DeadLetterTopic:
    """Write parked messages to the outbox, each as one record for the topic.

    The record has the key and the value of the message, byte for byte. Its first headers (``dead_letter_…``)
    describe the failure. The headers of the message follow, without those whose names begin with
    ``dead_letter_`` or ``relaybox_record_id``. If the record would exceed the limit of the outbox, the value
    is left out. If the record is still too large, the key and all headers of the message are left out too.
    So parking never fails because of the size of a message.
    """

    def __init__(self, name: str, *, bytes_max: int) -> None:
        """*bytes_max* limits the size of a record."""
        self.name = name
        self._bytes_max = bytes_max

    async def publish(
        self,
        db: AsyncSession,
        message: Message,
        aggregate: tuple[str, str] | None,
        *,
        group: str,
        failure: Mapping[str, str | int],
    ) -> None:
        """Publish *message* of *group* if the transaction of *db* commits.

        Args:
            db: Session of the transaction that parks the message.
            message: The message.
            aggregate: Type and id of its event's aggregate; None if the message is not an event.
            group: The consumer group that parked it.
            failure: Names (without ``dead_letter_``) and values of further headers that describe the failure.
        """
        topic, partition = message.partition
        place = {"group": group, "topic": topic, "partition": partition, "offset": message.offset}
        headers = [(f"{_PREFIX}{name}", str(value).encode()) for name, value in {**place, **failure}.items()]
        await append_record(
            db,
            self.name,
            _record(message, headers, self._bytes_max),
            order_key=_order_key(group, message),
            aggregate=aggregate,
        )


def _record(message: Message, failure: Headers, bytes_max: int) -> RawRecord:
    """Return the record of *message*; above *bytes_max* without its value, or with the *failure* alone."""
    original = [header for header in message.headers if not header[0].startswith((_PREFIX, RECORD_ID_HEADER))]
    complete = RawRecord(key=message.key, value=message.value, headers=[*failure, *original])
    if complete.bytes_max <= bytes_max:
        return complete
    without_value = RawRecord(
        key=message.key, value=None, headers=[*failure, (_OMITTED, b"value"), *original]
    )
    if without_value.bytes_max <= bytes_max:
        return without_value
    return RawRecord(key=None, value=None, headers=[*failure, (_OMITTED, b"key, value, headers")])


def _order_key(group: str, message: Message) -> str | None:
    """Return the key of the outbox row; None for a message without a key.

    Rows of one key are published in order. So all letters of the same group, topic and message key get the
    same row key. The message's own key is not used, because a letter that cannot be published would then
    block the events of that key.
    """
    if message.key is None:
        return None
    place = f"{group}\0{message.partition[0]}\0".encode()
    return f"dead-letter-{hashlib.sha256(place + message.key).hexdigest()}"


def dead_letter_topic(settings: DeadLetterSettings | None, topics: Sequence[str]) -> DeadLetterTopic | None:
    """Return the topic for the dead letters of a consumer of *topics*; None if no such topic is set.

    Args:
        settings: None reads ``DEAD_LETTER_TOPIC`` from the environment.
        topics: The topics that the consumer reads.

    Raises:
        SubscriptionInvalid: The topic is one of *topics*.
        TopicUndeclared: The topic is not in ``OUTBOX_TOPICS``.
        SettingsError: A setting in the environment is malformed.
    """
    name = (settings or load_settings(DeadLetterSettings)).topic
    if name is None:
        return None
    if name in topics:
        raise SubscriptionInvalid(
            f"DEAD_LETTER_TOPIC is {name}, which the consumer reads: each dead letter would come back to it; "
            "choose another topic"
        )
    outbox = load_settings(OutboxSettings)
    outbox.require_declared(name)
    return DeadLetterTopic(name, bytes_max=outbox.message_bytes_max)
