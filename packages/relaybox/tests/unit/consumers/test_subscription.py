"""What can be declared, and what a consumer can be composed of."""

from typing import Any

import pytest
import relaybox.consumers
import relaybox.http
from relaybox.consumers import Consumer, EventTransaction, Subscription, SubscriptionInvalid, subscribe
from relaybox.db import Database
from relaybox.settings import KafkaSettings, PostgresSettings
from relaybox_types.envelope import EventEnvelope
from relaybox_types.naming import EventNameInvalid, check_dotted_name

REQUESTED = "Genesis.Session.ConceptGenerationRequested"
CREATED = "Genesis.Session.Created"


async def handler(event: EventEnvelope, unit: EventTransaction) -> None: ...


def compose(*subscriptions: Subscription, **arguments: Any) -> Consumer:
    return Consumer(Database(PostgresSettings()), KafkaSettings(), subscriptions, **arguments)


def test_a_new_consumer_is_one_function() -> None:
    @subscribe(REQUESTED, CREATED, group="concept-agent")
    async def propose(event: EventEnvelope, unit: EventTransaction) -> None: ...

    assert propose.event_types == {REQUESTED, CREATED}
    assert repr(compose(propose)) == "<Consumer 'concept-agent' [0 partitions | 0 waiting | running]>"


@pytest.mark.guarantee("G09")
def test_event_name_that_breaks_the_rule_is_refused_at_its_declaration() -> None:
    with pytest.raises(EventNameInvalid):
        subscribe("Genesis.Session.Requesting", group="concept-agent")


@pytest.mark.guarantee("G09")
def test_subscription_uses_the_naming_rule_of_the_domain() -> None:
    assert subscribe("node.created", group="g", naming=check_dotted_name)(handler).event_types == {
        "node.created"
    }
    with pytest.raises(EventNameInvalid):
        subscribe(CREATED, group="g", naming=check_dotted_name)


@pytest.mark.parametrize(("types", "group"), [((), "g"), ((CREATED,), ""), ((CREATED,), "g" * 201)])
def test_a_subscription_that_cannot_work_is_refused(types: tuple[str, ...], group: str) -> None:
    with pytest.raises(SubscriptionInvalid):
        subscribe(*types, group=group)


@pytest.mark.parametrize(
    "arguments",
    [
        {"group": "a\0b"},
        {"group": "a\udc00"},
        {"order": "keys"},
        {"on_failure": "ignore"},
        {"transaction_events_max": 0},
        {"handler_timeout_s": 0.0},
        {"handler_timeout_s": float("nan")},
        {"handler_timeout_s": float("inf")},
        {"handler_timeout_s": 86_401.0},
    ],
    ids=str,
)
def test_an_argument_out_of_its_range_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(SubscriptionInvalid, match="must"):
        subscribe(CREATED, **{"group": "g", **arguments})


@pytest.mark.parametrize(
    "arguments",
    [{"topics": "domain-events"}, {"topics": ()}, {"concurrency": 0}, {"message_bytes_max": 0}],
    ids=str,
)
def test_a_consumer_that_would_read_nothing_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(SubscriptionInvalid, match="must"):
        compose(subscribe(CREATED, group="g")(handler), **arguments)


def test_a_consumer_has_subscriptions_of_exactly_one_group() -> None:
    with pytest.raises(SubscriptionInvalid, match="none"):
        compose()
    with pytest.raises(SubscriptionInvalid, match="'a', 'b'"):
        compose(subscribe(CREATED, group="a")(handler), subscribe(REQUESTED, group="b")(handler))


def test_an_event_type_has_one_handler_in_a_group() -> None:
    with pytest.raises(SubscriptionInvalid, match=CREATED):
        compose(subscribe(CREATED, group="a")(handler), subscribe(CREATED, REQUESTED, group="a")(handler))


def test_public_names_of_consumers_and_http_are_distinct() -> None:
    assert set(relaybox.consumers.__all__).isdisjoint(relaybox.http.__all__)
