"""The relay that a test steps, and the assertion of what was published."""

import re
from typing import Any
from uuid import uuid4

import pytest
from relaybox.db import Database
from relaybox.events import EventBus, EventType
from relaybox.settings import KafkaSettings
from relaybox.testing import PublishedAssertion, SteppedRelay, TopicClient, Topics, make_event

from tests.fixtures.events import publish_raw
from tests.fixtures.outbox_rows import fail_rows
from tests.fixtures.relays import put_events, rows_of

OPENED = EventType("Bank.Account.Opened")
TOPIC = "domain-events"


async def record(database: Database, *events: Any) -> None:
    """Record events as an application does, without publishing them."""
    for event in events:
        await database.run_in_transaction(lambda db, event=event: EventBus(db).publish(event))


async def test_nothing_is_published_before_the_call(
    relaybox_database: Database, relaybox_relay: SteppedRelay, assert_published: PublishedAssertion
) -> None:
    account = uuid4()
    await record(relaybox_database, make_event(OPENED, {"owner": "ann"}, aggregate_id=account))
    with pytest.raises(AssertionError, match="published: 0"):
        await assert_published(OPENED)
    assert await relaybox_relay.publish_all() == 1
    [event] = await assert_published(OPENED, key=account, payload={"owner": "ann"}, topic=TOPIC)
    assert event.aggregate_id == str(account)
    assert await relaybox_relay.publish_all() == 0


async def test_messages_from_before_the_test_are_not_seen(
    relaybox_database: Database,
    relaybox_relay: SteppedRelay,
    relaybox_kafka_settings: KafkaSettings,
    assert_published: PublishedAssertion,
) -> None:
    await relaybox_relay.publish(make_event(OPENED))
    with TopicClient(relaybox_kafka_settings) as client:
        next_test = PublishedAssertion(relaybox_database, Topics(client))
        await next_test(OPENED, count=0)
        await relaybox_relay.publish(make_event(OPENED))
        await next_test(OPENED)
    await assert_published(OPENED, count=2)


async def test_published_payload_must_have_the_given_fields(
    relaybox_relay: SteppedRelay, assert_published: PublishedAssertion
) -> None:
    payload = {"owner": {"name": "ann", "city": "Bern"}, "tags": ["a", "b"], "limit": None}
    await relaybox_relay.publish(make_event(OPENED, payload), make_event(OPENED, {"owner": {"name": "bob"}}))
    await assert_published(OPENED, count=2)
    await assert_published(OPENED, payload={"owner": {"name": "ann"}, "limit": None})
    await assert_published(OPENED, payload={"tags": ["a", "b"]})
    for other in ({"owner": {"name": "eve"}}, {"tags": ["a"]}, {"owner": "ann"}, {"age": 1}):
        with pytest.raises(AssertionError, match="payload with"):
            await assert_published(OPENED, payload=other)


async def test_failure_shows_what_was_published_and_what_is_pending(
    relaybox_database: Database,
    relaybox_relay: SteppedRelay,
    relaybox_kafka_settings: KafkaSettings,
    assert_published: PublishedAssertion,
) -> None:
    publish_raw(relaybox_kafka_settings, TOPIC, [("k", b"not JSON", None)])
    await relaybox_relay.publish(make_event("Bank.Account.Closed", {"why": "x" * 300}, aggregate_id="a"))
    await record(
        relaybox_database, make_event(OPENED, aggregate_id="b"), make_event(OPENED, aggregate_id="c")
    )
    await fail_rows(relaybox_database, (await rows_of(relaybox_database, "key = 'c'"))[0]["seq"])
    with pytest.raises(AssertionError) as raised:
        await assert_published(OPENED, key="b", payload={"owner": "ann"}, topic=TOPIC)
    message = re.sub(r"\[\d\]@\d+|seq \d+", "…", str(raised.value))
    assert message.splitlines() == [
        "expected 1 × Bank.Account.Opened, key 'b', payload with {\"owner\":\"ann\"}, topic 'domain-events'; "
        "published: 0",
        "Published since the test began:",
        "  domain-events…  key='k'  not an event",
        '  domain-events…  Bank.Account.Closed  key=\'a\'  {"why":"' + "x" * 192 + "…",
        "Rows of the outbox that are not published (`await relaybox_relay.publish_all()` publishes those "
        "that are neither FAILED nor behind a FAILED row):",
        "  …  domain-events  Bank.Account.Opened  key='b'  PENDING",
        "  …  domain-events  Bank.Account.Opened  key='c'  FAILED: RecordTooLarge: RecordTooLarge it was",
    ]


async def test_failure_says_that_nothing_was_published(assert_published: PublishedAssertion) -> None:
    with pytest.raises(AssertionError, match=r"published: 0\nNothing was published since the test began\.$"):
        await assert_published(OPENED)


async def test_failure_lists_twenty_messages(
    relaybox_kafka_settings: KafkaSettings, assert_published: PublishedAssertion
) -> None:
    publish_raw(relaybox_kafka_settings, TOPIC, [("k", b"{}", None)] * 23)
    with pytest.raises(AssertionError) as raised:
        await assert_published(OPENED)
    assert str(raised.value).count("not an event") == 20
    assert str(raised.value).endswith("and 3 before")


async def test_zero_events_are_not_asserted_while_one_is_in_the_outbox(
    relaybox_database: Database, assert_published: PublishedAssertion
) -> None:
    await record(relaybox_database, make_event(OPENED))
    await assert_published("Bank.Account.Closed", count=0)
    with pytest.raises(AssertionError, match="Rows of the outbox that are not published"):
        await assert_published(OPENED, count=0)
    await assert_published(OPENED, key="of another account", count=0)
    await assert_published(OPENED, topic="another-topic", count=0)


async def test_relay_publishes_other_keys_and_names_the_row_that_kafka_rejects(
    relaybox_database: Database, relaybox_relay: SteppedRelay, relaybox_topics: Topics
) -> None:
    await put_events(relaybox_database, "no-such-topic", ["a"], count=12)
    await put_events(relaybox_database, TOPIC, ["b"], count=2)
    with pytest.raises(AssertionError, match="cannot publish some rows") as raised:
        await relaybox_relay.publish_all()
    lines = str(raised.value).splitlines()
    assert "no-such-topic  Genesis.Session.Created  key='a'  RETRYING: TopicUnknown: " in lines[1]
    assert (len(lines), lines[-1]) == (12, "  and 2 more")
    sent = await rows_of(relaybox_database, "status = 'SENT'")
    assert [row["key"] for row in sent] == ["b", "b"]
    assert len((await relaybox_topics.read())[0]) == 2


async def test_relay_publishes_rows_behind_a_thousand_blocked_rows(
    relaybox_database: Database, relaybox_relay: SteppedRelay
) -> None:
    await put_events(relaybox_database, TOPIC, ["a"], count=1_001)
    await fail_rows(relaybox_database, (await rows_of(relaybox_database))[0]["seq"])
    await put_events(relaybox_database, TOPIC, ["b"])
    with pytest.raises(AssertionError, match="cannot publish some rows") as raised:
        await relaybox_relay.publish_all()
    assert str(raised.value).endswith("  and at least 990 more")
    assert [row["key"] for row in await rows_of(relaybox_database, "status = 'SENT'")] == ["b"]


def test_made_event_has_defaults_of_its_name() -> None:
    first, second = make_event("Bank.Account.Opened"), make_event("Opened", version=3, actor_id="ann")
    assert (first.aggregate_type, first.version, first.event_version) == ("ACCOUNT", 1, 1)
    assert (second.aggregate_type, second.version, second.actor_id) == ("OPENED", 3, "ann")
    assert len({first.event_id, second.event_id, first.correlation_id, second.correlation_id}) == 4
    declared = EventType("Bank.Account.Opened", version=2, upcast={1: dict})
    assert make_event(declared).event_version == 2
