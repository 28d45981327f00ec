"""What the broker will take: which topics exist, and how large their records may be (G34)."""

from collections.abc import Iterable, Mapping
from typing import Final

import structlog
from confluent_kafka import KafkaError
from confluent_kafka.admin import AdminClient

from relaybox.kafka import topic_configs
from relaybox.relay._errors import LinkDown

__all__ = ("TopicLimits",)

_ANSWER_S: Final = 5.0
_LIMIT: Final = "max.message.bytes"
#: Kafka's default, taken where the relay may not read a topic's configuration.
_LIMIT_BYTES: Final = 1_048_588
_UNKNOWN: Final = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.TOPIC_EXCEPTION})
_FORBIDDEN: Final = frozenset(
    {KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED}
)
_log = structlog.get_logger(__name__)


class TopicLimits:
    """``max.message.bytes`` of the topics that exist, asked once per topic and connection.

    A topic that does not exist is asked for again each time: it may have been created. :meth:`refresh` asks
    again for a topic whose limit a record exceeds: the limit may have been raised.
    Blocking: belongs to the publisher's thread.
    """

    def __init__(self, admin: AdminClient) -> None:
        self._admin = admin
        self._bytes_max: dict[str, int] = {}

    def cached(self, topics: Iterable[str]) -> Mapping[str, int] | None:
        """The limits, if all of *topics* are known to exist."""
        return self._bytes_max if self._bytes_max.keys() >= set(topics) else None

    def of(self, topics: Iterable[str]) -> Mapping[str, int]:
        """The limits of all topics known so far; those of *topics* that are missing do not exist.

        Raises:
            LinkDown: the broker does not answer.
        """
        unknown = sorted(set(topics) - self._bytes_max.keys())
        try:
            configs = topic_configs(self._admin, unknown, _ANSWER_S)
        except TimeoutError as error:
            raise LinkDown("the broker did not answer what it accepts; check KAFKA_HOST") from error
        for topic, config in configs.items():
            if isinstance(config, KafkaError):
                self._note_error(topic, config)
            else:
                self._bytes_max[topic] = int(config[_LIMIT] or _LIMIT_BYTES)
        return self._bytes_max

    def refresh(self, topics: Iterable[str]) -> Mapping[str, int]:
        """Ask again for the limits of *topics*; return the limits of all topics known then.

        Raises:
            LinkDown: the broker does not answer.
        """
        for topic in topics:
            self._bytes_max.pop(topic, None)
        return self.of(topics)

    def _note_error(self, topic: str, error: KafkaError) -> None:
        if error.code() in _UNKNOWN:
            return
        if error.code() not in _FORBIDDEN:
            raise LinkDown(f"the broker does not say what it accepts: {error.str()}")
        _log.warning("the relay may not read a topic's configuration; assuming Kafka's default", topic=topic)
        self._bytes_max[topic] = _LIMIT_BYTES
