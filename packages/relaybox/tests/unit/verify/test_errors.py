"""What a verification reports if PostgreSQL or Kafka refuses or does not respond."""

import asyncpg
import pytest
from relaybox.db import DatabaseBusy, DatabaseUnavailable
from relaybox.settings import KafkaSettings
from relaybox.verify import TablesUnreadable, TopicMetadata, TopicUnreadable, _topics
from relaybox.verify._tables import map_table_errors


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (asyncpg.InsufficientPrivilegeError("no"), "GRANT SELECT"),
        (asyncpg.UndefinedTableError("no"), "run relaybox migrate up"),
        (asyncpg.UndefinedColumnError("no"), "run relaybox migrate up"),
    ],
)
def test_refusal_of_postgresql_is_reported_with_its_remedy(error: Exception, remedy: str) -> None:
    with pytest.raises(TablesUnreadable, match=remedy), map_table_errors():
        raise error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (asyncpg.LockNotAvailableError("no"), DatabaseBusy),
        (ConnectionResetError("no"), DatabaseUnavailable),
        (asyncpg.DivisionByZeroError("no"), asyncpg.DivisionByZeroError),
    ],
)
def test_other_errors_of_postgresql_are_mapped_or_kept(error: Exception, expected: type[Exception]) -> None:
    with pytest.raises(expected), map_table_errors():
        raise error


def test_brokers_that_do_not_describe_a_topic_are_unreadable(monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(*_: object) -> None:
        raise TimeoutError

    monkeypatch.setattr(_topics, "topic_configs", silent)
    silence = pytest.raises(TopicUnreadable, match="localhost:1: no response in time")
    with TopicMetadata(KafkaSettings(port=1)) as topics, silence:
        topics.retention(["orders"])
