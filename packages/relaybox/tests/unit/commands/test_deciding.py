"""From a loaded aggregate and a command to the rows to write, without any I/O."""

from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic_core import from_json
from relaybox.commands import (
    AggregateNotFound,
    Caller,
    Command,
    CommandError,
    Domain,
    DuplicateCommand,
    Event,
    PayloadInvalid,
    StaleVersion,
    UnknownCommand,
    _decide,
)
from relaybox.commands._decide import Decision, LoadedAggregate
from relaybox.outbox import MessageTooLarge, OutboxSettings, TopicUndeclared
from relaybox_types.envelope import EventEnvelope

from tests.fixtures.counters import ADA, AGENT, BOB, Counter, TooMuch, counters

ID = uuid4()
PENDING = uuid4()


def loaded(*, total: int = 0, version: int = 3, pending: dict[str, str] | None = None) -> LoadedAggregate:
    state = Counter(id=ID, owner="ada", version=version, total=total)
    return LoadedAggregate(owner="ada", state=state.model_dump_json(), pending=pending or {})


def asking(command_type: str, payload: Any = None, *, caller: Caller = ADA, **more: Any) -> Command:
    return Command(aggregate_id=ID, command_type=command_type, payload=payload or {}, caller=caller, **more)


def decide(
    domain: Domain[Any], request: Command, found: LoadedAggregate | None, outbox: OutboxSettings | None = None
) -> Decision:
    return _decide.decide(domain, request, found, outbox or OutboxSettings())


def envelopes(decision: Decision) -> list[EventEnvelope]:
    return [EventEnvelope.model_validate_json(text) for _, text in decision.events]


def test_events_of_a_command_increment_the_version() -> None:
    decision = decide(counters, asking("Increase", {"by": 5, "steps": 3}), loaded(total=1))

    assert [one.version for one in envelopes(decision)] == [4, 5, 6]
    snapshot = from_json(decision.snapshot)
    assert (snapshot["total"], snapshot["version"], snapshot["expected_version"]) == (16, 6, 3)
    assert snapshot["aggregate_type"] == "COUNTER"
    result = decision.result()
    assert (result.status, result.message) == ("COMPLETED", "Command processed successfully")
    assert (result.version, result.aggregate_id) == (6, ID)


def test_snapshot_contains_only_changed_fields() -> None:
    decision = decide(counters, asking("Increase", {"by": 5}), loaded(total=1))
    always = {"id", "version", "expected_version", "aggregate_type"}
    assert set(from_json(decision.snapshot)) == {"total", *always}


def test_pending_command_is_received_and_its_decider_gets_its_id() -> None:
    request = asking("RequestCount")
    decision = decide(counters, request, loaded())
    assert decision.result().status == "RECEIVED"
    assert decision.result().command_id == request.command_id
    assert from_json(decision.snapshot)["counting"] == str(request.command_id)


def test_creating_command_makes_an_aggregate_of_its_sender() -> None:
    decision = decide(counters, asking("CreateCounter", {"start": 7}, creates=True), None)
    snapshot = from_json(decision.snapshot)
    assert (snapshot["owner"], snapshot["total"], snapshot["version"]) == ("ada", 7, 1)
    assert snapshot["expected_version"] == 0


def test_envelope_has_actor_aggregate_and_cause() -> None:
    caller = replace(ADA, request_id="r-1", traceparent="00-trace")
    (event,) = envelopes(decide(counters, asking("Increase", caller=caller), loaded()))
    assert (event.event_type, event.event_version) == ("Suite.Counter.Updated", 2)
    assert (event.aggregate_type, event.aggregate_id, event.target_id) == ("COUNTER", str(ID), str(ID))
    assert event.actor_id == "ada"
    known = {"user_id": "ada", "source_service": "suite", "request_id": "r-1", "traceparent": "00-trace"}
    assert known.items() <= event.metadata.items()
    assert event.metadata["timestamp"]


def test_event_of_earlier_version_is_applied_upcast_recorded_as_decided(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old = Event(type="Suite.Counter.Updated", event_version=1, payload={"amount": 40})
    handler = replace(counters.handlers["Increase"], decide=lambda *_: [old])
    monkeypatch.setitem(counters.handlers, "Increase", handler)
    decision = decide(counters, asking("Increase"), loaded(total=2))
    (event,) = envelopes(decision)
    assert from_json(decision.snapshot)["total"] == 42
    assert (event.event_version, event.payload) == (1, {"amount": 40})


def test_metadata_omits_what_is_unknown_of_the_caller() -> None:
    (event,) = envelopes(decide(counters, asking("Increase"), loaded()))
    assert event.metadata.keys() == {"user_id", "source_service", "command_id", "timestamp"}


# Chains


@pytest.mark.guarantee("G08")
def test_command_of_a_client_begins_a_chain_with_its_id() -> None:
    request = asking("Increase", {"steps": 3})
    first, second, third = envelopes(decide(counters, request, loaded()))
    assert {first.correlation_id, second.correlation_id, third.correlation_id} == {request.command_id}
    assert first.causation_id is None
    assert second.causation_id == first.event_id
    assert third.causation_id == second.event_id


@pytest.mark.guarantee("G08")
def test_caller_following_an_event_keeps_chain_and_cause() -> None:
    chain, cause = uuid4(), uuid4()
    caller = replace(AGENT, correlation_id=chain, causation_id=cause)
    events = envelopes(decide(counters, asking("Increase", {"steps": 2}, caller=caller), loaded()))
    assert [one.correlation_id for one in events] == [chain, chain]
    assert [one.causation_id for one in events] == [cause, cause]


@pytest.mark.guarantee("G08")
def test_failure_event_is_part_of_the_chain() -> None:
    caller = replace(AGENT, correlation_id=uuid4(), causation_id=uuid4())
    decision = decide(counters, asking("ReportCount", {"command_id": str(PENDING)}, caller=caller), loaded())
    (event,) = envelopes(decision)
    assert event.event_type == "Suite.Counter.CountFailed"
    assert (event.correlation_id, event.causation_id) == (caller.correlation_id, caller.causation_id)


# Precedence: 404, 422 schema, 409 pending, 422 rules

BAD = {"by": "many"}
WAITING = {"RequestCount": str(PENDING)}


@pytest.mark.parametrize(
    ("request_", "state", "error"),
    [
        (asking("NoSuch", BAD, caller=BOB), loaded(pending=WAITING), AggregateNotFound),
        (asking("NoSuch", BAD), loaded(pending=WAITING), UnknownCommand),
        (asking("Increase", BAD, expected_version=1), loaded(pending=WAITING), PayloadInvalid),
        (asking("RequestCount", expected_version=1), loaded(total=2_000, pending=WAITING), DuplicateCommand),
        (asking("RequestCount", expected_version=1), loaded(total=2_000), StaleVersion),
        (asking("RequestCount", expected_version=3), loaded(total=2_000), TooMuch),
    ],
)
def test_first_of_several_refusals_is_that_of_the_documented_order(
    request_: Command, state: LoadedAggregate, error: type[CommandError]
) -> None:
    with pytest.raises(error):
        decide(counters, request_, state)


@pytest.mark.guarantee("G03")
def test_duplicate_has_the_id_of_the_pending_command() -> None:
    with pytest.raises(DuplicateCommand) as refused:
        decide(counters, asking("RequestCount"), loaded(pending=WAITING))
    assert refused.value.duplicate_command_id == PENDING
    assert str(refused.value) == "Command already processing"


def test_pending_command_does_not_block_another_type() -> None:
    assert decide(counters, asking("Increase"), loaded(pending=WAITING))


@pytest.mark.guarantee("G81")
def test_aggregate_of_another_user_is_reported_as_missing() -> None:
    with pytest.raises(AggregateNotFound) as refused:
        decide(counters, asking("Increase", caller=BOB), loaded())
    assert str(refused.value) == str(AggregateNotFound(ID))
    assert "ada" not in str(refused.value)


def test_agent_may_change_any_aggregate() -> None:
    assert decide(counters, asking("Increase", caller=AGENT), loaded())


def test_internal_command_is_unknown_to_clients() -> None:
    with pytest.raises(UnknownCommand):
        decide(counters, asking("ReportCount", {"command_id": str(PENDING)}), loaded())


def test_details_of_an_invalid_payload_name_fields_without_values() -> None:
    with pytest.raises(PayloadInvalid) as refused:
        decide(counters, asking("Increase", {"by": "s3cret", "steps": []}), loaded())
    assert [detail["field"] for detail in refused.value.details] == ["payload.by", "payload.steps"]
    assert "s3cret" not in str(refused.value)


def deep(levels: int) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for _ in range(levels):
        document = {"a": document}
    return document


@pytest.mark.parametrize(
    "extra",
    ["a\x00b", {"k\x00": 1}, "\ud800", "\\\x00", deep(10_000), object()],
    ids=["nul", "nul in a name", "lone surrogate", "nul after a backslash", "deep", "no JSON"],
)
def test_payload_that_postgresql_cannot_store_is_refused(extra: Any) -> None:
    with pytest.raises(PayloadInvalid):
        decide(counters, asking("Increase", {"extra": extra}), loaded())


@pytest.mark.parametrize("extra", ["\\u0000", "\\\\u0000", "科幻 🐉", deep(64)])
def test_storable_payload_is_unchanged(extra: Any) -> None:
    payload = {"by": 1, "extra": extra}
    assert from_json(decide(counters, asking("Increase", payload), loaded()).payload) == payload


@pytest.mark.parametrize("steps", [0, 101])
def test_decider_without_events_or_with_too_many_is_a_defect(steps: int) -> None:
    with pytest.raises(AssertionError, match=f"Increase returned {steps} events; return 1 to 100 events"):
        decide(counters, asking("Increase", {"steps": steps}), loaded())


@pytest.mark.guarantee("G34")
def test_event_too_large_for_the_broker_is_refused_before_writing() -> None:
    outbox = OutboxSettings(message_bytes_max=12_000)
    assert decide(counters, asking("Increase", {"note_bytes": 5_000}), loaded(), outbox)
    with pytest.raises(MessageTooLarge, match="the limit is 12000"):
        decide(counters, asking("Increase", {"note_bytes": 6_000}), loaded(), outbox)


@pytest.mark.guarantee("G34")
def test_undeclared_topic_is_refused_before_writing() -> None:
    outbox = OutboxSettings(topics="one, two")
    with pytest.raises(TopicUndeclared, match=r"'domain-events' is not declared.*OUTBOX_TOPICS \(one, two\)"):
        decide(counters, asking("Increase"), loaded(), outbox)


def test_event_follows_the_route_of_its_domain() -> None:
    outbox = OutboxSettings(topics="suite-events", routes="Suite=suite-events")
    assert decide(counters, asking("Increase"), loaded(), outbox).topic == "suite-events"
    assert decide(counters, asking("Increase"), loaded()).topic == "domain-events"


def test_end_of_a_pending_command_is_written_with_its_event() -> None:
    request = asking("ReportCount", {"command_id": str(PENDING), "found": 4}, caller=AGENT)
    (settlement,) = decide(counters, request, loaded()).settlements
    assert settlement.command_id == PENDING
    assert (settlement.command_status, settlement.task_status) == ("COMPLETED", "COMPLETED")
    assert isinstance(settlement.command_id, UUID)
