"""How many records the reader returns at once, and when it stops reading; the consumer is imitated."""

import pytest
from confluent_kafka import KafkaError
from relaybox.settings import KafkaSettings
from relaybox.verify import TopicUnreadable, _topics
from relaybox.verify._topics import Reader

PARTITION = ("t", 0)
#: Records that the reader returns at once.
RECORDS_MAX = 5_000


class Message:
    """A record of the partition."""

    def __init__(self, offset: int, error: KafkaError | None = None) -> None:
        self.offset = lambda: offset
        self.error = lambda: error

    def topic(self) -> str:
        return PARTITION[0]

    def partition(self) -> int:
        return PARTITION[1]

    def timestamp(self) -> tuple[int, int]:
        return 1, 0

    def key(self) -> bytes:
        return b"a"

    def value(self) -> bytes:
        return b"{}"

    def headers(self) -> list[tuple[str, bytes]]:
        return [("ce_id", b"1")]


class Topic:
    """A consumer of a partition with *records*, which returns one record per call."""

    def __init__(self, records: int) -> None:
        self.records = records
        self.calls = 0

    def assign(self, _partitions: object) -> None:
        """Begin at offset 0."""

    pause = assign

    def consume(self, _messages_max: int, _timeout_s: float) -> list[Message]:
        self.calls += 1
        return [Message(self.calls - 1)] if self.calls <= self.records else []


def reader_to(end: int, monkeypatch: pytest.MonkeyPatch) -> tuple[Reader, Topic]:
    """Return a reader up to the offset *end*, and its consumer."""
    topic = Topic(end + 10)
    monkeypatch.setattr(_topics, "Consumer", lambda _settings: topic)
    return Reader(KafkaSettings(port=1), {PARTITION: 0}, {PARTITION: end}, "read_committed"), topic


def test_reader_returns_at_most_5000_records_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, _ = reader_to(RECORDS_MAX + 2, monkeypatch)
    assert [len(reader.read()), reader.done] == [RECORDS_MAX, False]
    assert [len(reader.read()), reader.done] == [2, True]


@pytest.mark.guarantee("G33")
def test_reader_stops_at_the_end_that_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, topic = reader_to(3, monkeypatch)
    assert [record.offset for record in reader.read()] == [0, 1, 2]
    assert (reader.done, topic.calls) == (True, 3)
    assert (reader.read(), topic.calls) == ([], 3)


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED), id="forbidden"),
        pytest.param(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART), id="deleted"),
        pytest.param(KafkaError(KafkaError._FATAL, "fenced", fatal=True), id="fatal"),
    ],
)
def test_reader_fails_at_an_error_that_stays(error: KafkaError, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, topic = reader_to(3, monkeypatch)
    answers = iter([[Message(0, error)]])
    monkeypatch.setattr(topic, "consume", lambda *_: next(answers, []))
    with pytest.raises(TopicUnreadable):
        reader.read()


def test_reader_goes_on_after_an_error_that_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, topic = reader_to(3, monkeypatch)
    consume = topic.consume
    answers = iter([[Message(0, KafkaError(KafkaError._TRANSPORT))]])
    monkeypatch.setattr(topic, "consume", lambda *call: next(answers, None) or consume(*call))
    assert [record.offset for record in reader.read()] == [0, 1, 2]
