"""Declarations of a domain: errors at import, and the handlers that a caller may use."""

from typing import Any, Self
from uuid import UUID

import pytest
from pydantic import BaseModel
from relaybox.commands import Aggregate, CommandService, Domain, Events, UnknownCommand
from relaybox.db import Database
from relaybox.events import Event, EventTypeInvalid
from relaybox.outbox import Notifier, OutboxSettings, TopicUndeclared
from relaybox.settings import PostgresSettings
from relaybox_types.naming import EventNameInvalid, check_dotted_name

from tests.fixtures.counters import Counter, CreateCounter, Increase, ReportCount, counters, increase


class Thing(Aggregate):
    def apply(self, event: Event) -> Self:
        return self


def a_domain(name: str = "Suite.Thing") -> Domain[Thing]:
    return Domain(name, aggregate=Thing, aggregate_type="THING")


class Go(BaseModel):
    pass


def go(thing: Thing, command: Go) -> Events:
    return []


def test_command_has_the_name_of_its_model_and_decider_is_unchanged() -> None:
    domain = a_domain()
    assert domain.command(go) is go
    assert domain.handlers["Go"].model is Go
    assert increase(Counter(id=UUID(int=1), owner="ada"), Increase(by=2))


def test_event_type_has_the_domains_name_and_makes_versioned_events() -> None:
    changed = a_domain().event("Updated", version=3, upcast={1: dict, 2: dict})
    event = changed({"a": 1})
    assert (event.type, event.event_version, event.payload) == ("Suite.Thing.Updated", 3, {"a": 1})
    assert changed().payload == {}


def test_domain_knows_its_event_types_and_refuses_a_second_declaration() -> None:
    domain = a_domain()
    changed = domain.event("Updated", version=2, upcast={1: dict})
    assert list(domain.event_types) == [changed]
    assert domain.event("Updated", version=2, upcast={1: dict}) == changed
    with pytest.raises(EventTypeInvalid, match=r"Suite\.Thing\.Updated is declared twice"):
        domain.event("Updated")


def test_event_without_upcaster_for_an_earlier_version_is_refused() -> None:
    with pytest.raises(EventTypeInvalid, match=r"Suite\.Thing\.Updated has version 2, but upcast= has no"):
        a_domain().event("Updated", version=2)


@pytest.mark.guarantee("G09")
@pytest.mark.parametrize(
    ("name", "action"), [("Suite.Thing", "Change"), ("suite", "Updated"), ("S", "Created")]
)
def test_invalid_event_name_is_refused_at_its_declaration(name: str, action: str) -> None:
    with pytest.raises(EventNameInvalid):
        a_domain(name).event(action)


@pytest.mark.guarantee("G09")
def test_domain_may_have_another_naming_rule() -> None:
    domain = Domain("study", aggregate=Thing, aggregate_type="STUDY", naming=check_dotted_name)
    assert domain.event("chapter.created")().type == "study.chapter.created"
    with pytest.raises(EventNameInvalid):
        domain.event("Chapter.Created")


class WithoutApply(Aggregate):
    size: int = 0


@pytest.mark.parametrize(
    ("aggregate", "message"),
    [
        (Go, r"Go'> cannot be a domain's aggregate; derive it from Aggregate"),
        (Thing(id=UUID(int=1), owner="ada"), "cannot be a domain's aggregate"),
        (WithoutApply, r"WithoutApply has no apply\(\); define apply\(self, event\)"),
    ],
)
def test_class_that_cannot_be_an_aggregate_is_refused(aggregate: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        Domain("Suite.Thing", aggregate=aggregate, aggregate_type="THING")


def test_command_cannot_be_declared_twice() -> None:
    domain = a_domain()
    domain.command(go)
    with pytest.raises(TypeError, match=r"Suite\.Thing declares Go twice"):
        domain.command(pending=True)(go)


def without_annotation(thing, command):
    return []


def with_another_type(thing: Thing, command: dict[str, str]) -> Events:
    return []


def with_one_parameter(thing: Thing) -> Events:
    return []


def with_no_parameter() -> Events:
    return []


def with_a_wrong_third(thing: Thing, command: Go, when: str) -> Events:
    return []


def with_four_parameters(thing: Thing, command: Go, command_id: UUID, when: str) -> Events:
    return []


@pytest.mark.parametrize(
    "decider", [without_annotation, with_another_type, with_one_parameter, with_no_parameter]
)
def test_decider_must_annotate_its_model(decider) -> None:
    with pytest.raises(TypeError, match=f"{decider.__name__}: annotate the second parameter"):
        a_domain().command(decider)


async def asynchronous(thing: Thing, command: Go) -> Events:
    return []


async def asynchronous_generator(thing: Thing, command: Go) -> Any:
    yield []


@pytest.mark.parametrize("decider", [asynchronous, asynchronous_generator])
def test_asynchronous_decider_is_refused(decider: Any) -> None:
    with pytest.raises(TypeError, match="is asynchronous, but a decider must be pure; write it with def"):
        a_domain().command(decider)


@pytest.mark.parametrize(
    ("decider", "parameters"),
    [
        (with_a_wrong_third, "thing, command, when"),
        (with_four_parameters, "thing, command, command_id, when"),
    ],
)
def test_decider_has_two_parameters_and_an_optional_uuid(decider: Any, parameters: str) -> None:
    text = rf"has the parameters \({parameters}\); declare \(aggregate, command\) or .*command_id: UUID\)"
    with pytest.raises(TypeError, match=text):
        a_domain().command(decider)


@pytest.mark.parametrize(
    ("model", "internal", "creates"),
    [
        (CreateCounter, False, True),
        (Increase, False, False),
        (Increase, True, False),
        (ReportCount, True, False),
    ],
)
def test_handler_is_found_only_for_permitted_callers(model, internal: bool, creates: bool) -> None:
    assert counters.handler(model.__name__, internal=internal, creates=creates).model is model


@pytest.mark.parametrize(
    ("name", "creates"),
    [("ReportCount", False), ("CreateCounter", False), ("Increase", True), ("increase", False), ("", False)],
)
def test_command_of_another_kind_is_unknown_and_internal_ones_unlisted(name: str, creates: bool) -> None:
    with pytest.raises(UnknownCommand) as refused:
        counters.handler(name, internal=False, creates=creates)
    assert "send one of: " in str(refused.value)
    assert "ReportCount" not in str(refused.value).partition("send one of: ")[2]


def test_error_shortens_a_long_unknown_name() -> None:
    with pytest.raises(UnknownCommand) as refused:
        counters.handler("x" * 100_000, internal=False, creates=False)
    assert len(str(refused.value)) < 300


def test_two_domains_cannot_share_a_name_or_a_command() -> None:
    one, same_name, same_command = a_domain(), a_domain(), a_domain("Suite.Other")
    one.command(go)
    same_command.command(go)
    database = Database(PostgresSettings())
    for pair, why in (
        ((one, same_name), r"two domains have the name Suite\.Thing"),
        ((one, same_command), r"domains Suite\.Thing and Suite\.Other both declare Go; rename"),
    ):
        with pytest.raises(TypeError, match=why):
            CommandService(database, pair, notifier=Notifier(database), source_service="suite")


@pytest.mark.guarantee("G34")
def test_domain_with_undeclared_topic_stops_the_start() -> None:
    database = Database(PostgresSettings())

    def start(**settings: str) -> CommandService:
        notifier, outbox = Notifier(database), OutboxSettings(**settings)
        return CommandService(
            database, [a_domain()], notifier=notifier, source_service="suite", outbox=outbox
        )

    assert start(topics="suite-events", routes="Suite=suite-events")
    with pytest.raises(TopicUndeclared, match="'domain-events' is not declared"):
        start(topics="suite-events", routes="Other=suite-events")


def test_aggregate_without_apply_raises() -> None:
    with pytest.raises(
        NotImplementedError, match=r"Aggregate must define apply\(\) for Suite\.Thing\.Updated"
    ):
        Aggregate(id=UUID(int=1), owner="ada").apply(a_domain().event("Updated")())


def test_repr_of_a_domain() -> None:
    assert repr(a_domain()) == "<Domain Suite.Thing [no commands]>"
    assert "Increase" in repr(counters)
