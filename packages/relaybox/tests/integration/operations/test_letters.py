"""Queries and actions of operators on dead letters."""

import asyncio

import asyncpg
import pytest
from relaybox.consumers import ConsumerSignal, EventTransaction
from relaybox.db import Database
from relaybox.operations import (
    LetterAction,
    LetterReason,
    LetterSelection,
    LetterStatus,
    SelectionEmpty,
    discard_letters,
    list_letters,
    preview_letters,
    replay_letters,
    show_letter,
)
from relaybox.settings import KafkaSettings, PostgresSettings
from relaybox_types.envelope import EventEnvelope

from tests.fixtures.events import effects, make_effects_table, make_event, publish, record_effect
from tests.fixtures.letters import consuming, letter_rows, letter_statuses, park_letters, wait_for_lock_waits
from tests.fixtures.outbox_rows import operator_acts
from tests.fixtures.waiting import eventually

PARKED, REPLAYED = ConsumerSignal.PARKED, ConsumerSignal.REPLAYED
EVERY = LetterSelection()


@pytest.fixture
def no_retry_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relaybox.consumers._policy._RETRY_PAUSES_S", (0.0, 0.0, 0.0))


@pytest.mark.guarantee("G41")
async def test_letters_are_selected_by_each_condition(database: Database) -> None:
    [first, behind] = await park_letters(database, "a", count=2)
    [other] = await park_letters(database, "b", group="mailer")
    async with database.connection() as connection:
        for selection, expected in {
            EVERY: [first, behind, other],
            LetterSelection(ids=(behind, other)): [behind, other],
            LetterSelection(keys=("a",)): [first, behind],
            LetterSelection(groups=("mailer",)): [other],
            LetterSelection(reasons=(LetterReason.BLOCKED,)): [behind],
            LetterSelection(event_types=("Genesis.Session.Created",)): [],
            LetterSelection(statuses=(LetterStatus.REPLAYED,)): [],
            LetterSelection(keys=("a",), reasons=(LetterReason.HANDLER_FAILED,)): [first],
        }.items():
            assert [
                letter.id for letter in await list_letters(connection, selection, letters_max=9)
            ] == expected
        assert [letter.id for letter in await list_letters(connection, EVERY, letters_max=2)] == [
            first,
            behind,
        ]


@pytest.mark.guarantee("G41")
async def test_letter_is_shown_without_content_unless_requested(database: Database) -> None:
    [first, behind] = await park_letters(database, "a", count=2)
    await replay_letters(database, LetterSelection(ids=[first]), by="ann", reason="repaired")
    async with database.connection() as connection:
        shown = await show_letter(connection, first)
        assert (shown.letter.message_key, shown.letter.error_code, shown.behind) == ("a", "ValueError", 1)
        assert (shown.payload, [*shown.headers]) == (None, ["ce_type"])
        assert [(act["by"], act["act"], act["reason"]) for act in shown.acts] == [
            ("ann", "replay", "repaired")
        ]
        whole = await show_letter(connection, behind, with_payload=True)
        assert whole.payload["payload"] == {"text": "秘密"}
        assert whole.headers["name"] == "秘密"
        assert (whole.behind, whole.acts) == (0, [])
        with pytest.raises(SelectionEmpty, match="no dead letter 4711"):
            await show_letter(connection, 4711)


@pytest.mark.guarantee("G41")
async def test_value_that_is_not_json_is_shown_as_text_or_base64(
    database: Database, superuser: asyncpg.Connection
) -> None:
    [letter] = await park_letters(database, None)
    shown = []
    for value in (b"plain", b"\xff", None):
        await superuser.execute("UPDATE dead_letters SET value = $1", value)
        async with database.connection() as connection:
            shown.append((await show_letter(connection, letter, with_payload=True)).payload)
    assert shown == ["plain", {"base64": "/w=="}, None]


@pytest.mark.guarantee("G42")
async def test_requested_letters_are_replayed_by_the_consumer(
    database: Database,
    postgres_settings: PostgresSettings,
    kafka_settings: KafkaSettings,
    topic: str,
    no_retry_pauses: None,
) -> None:
    await make_effects_table(postgres_settings)
    events = [make_event(aggregate_id="a", version=version) for version in (1, 2, 3)]
    broken = True

    async def handle(event: EventEnvelope, unit: EventTransaction) -> None:
        if broken:
            raise RuntimeError("broken")
        await record_effect(event, unit)

    async with consuming(database, kafka_settings, topic, "projection", handle) as signals:
        publish(kafka_settings, topic, events)
        await signals.wait_for(PARKED, 3)
        broken = False
        done = await replay_letters(
            database, LetterSelection(reasons=[LetterReason.HANDLER_FAILED]), by="ann", reason="repaired"
        )
        assert (done.letters_total, done.letters_behind_another) == (1, 0)
        await signals.wait_for(REPLAYED, 3)
    assert await effects(database) == [event.event_id for event in events]
    found = await letter_rows(database)
    # The letters behind are requested in the name of the same operator.
    assert {(row["status"], row["resolved_by"], row["resolved_reason"]) for row in found} == {
        ("REPLAYED", "ann", "repaired")
    }
    [act] = await operator_acts(database)
    assert (act["actor"], act["act"], act["reason"]) == ("ann", "replay", "repaired")
    assert act["target"]["selection"] == {"reasons": ["HANDLER_FAILED"]}
    [recorded] = act["target"]["letters"]
    assert (recorded["id"], recorded["event_id"]) == (found[0]["id"], str(events[0].event_id))


@pytest.mark.guarantee("G42")
async def test_replay_behind_an_unrequested_letter_is_accepted_and_waits(database: Database) -> None:
    [first, second, third] = await park_letters(database, "a", count=3)
    await park_letters(database, "b")
    async with database.connection() as connection:
        selection = LetterSelection(ids=[second, third])
        found = await preview_letters(connection, LetterAction.REPLAY, selection, letters_max=1)
        assert ([letter.id for letter in found.letters], found.letters_total) == ([second], 2)
        assert found.letters_behind_another == 2
        found = await preview_letters(connection, LetterAction.REPLAY, EVERY, letters_max=9)
        assert (found.letters_total, found.letters_behind_another) == (4, 0)
    done = await replay_letters(database, LetterSelection(ids=[third]), by="ann")
    assert (done.letters_total, done.letters_behind_another) == (1, 1)
    assert await letter_statuses(database) == ["PARKED", "PARKED", "REPLAY_REQUESTED", "PARKED"]
    done = await replay_letters(database, LetterSelection(ids=[first]), by="ann")
    assert (done.letters_total, done.letters_behind_another) == (1, 0)
    # The first letter is requested, and the second one only waits behind it.
    done = await replay_letters(database, LetterSelection(ids=[second]), by="ann")
    assert (done.letters_total, done.letters_behind_another) == (1, 0)


@pytest.mark.guarantee("G42")
async def test_two_operators_request_each_letter_once(
    database: Database, superuser: asyncpg.Connection
) -> None:
    await park_letters(database, "a", count=20)
    async with superuser.transaction():
        # Both calls wait for this lock: both have selected the letters before one of them changes any.
        await superuser.execute("SELECT FROM dead_letters ORDER BY id LIMIT 1 FOR UPDATE")
        calls = [
            asyncio.create_task(replay_letters(database, EVERY, by=operator)) for operator in ("ann", "bob")
        ]

        await wait_for_lock_waits(database, 2)
    done = [call.letters_total for call in await asyncio.gather(*calls)]
    assert sorted(done) == [0, 20]
    [act] = await operator_acts(database)
    assert act["target"]["count"] == 20
    assert {row["resolved_by"] for row in await letter_rows(database)} == {act["actor"]}


@pytest.mark.guarantee("G42")
async def test_steps_of_an_action_change_every_letter_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relaybox.operations._letter_actions._STEP_LETTERS_MAX", 2)
    await park_letters(database, "a", count=5)
    assert (await replay_letters(database, EVERY, by="ann")).letters_total == 5
    assert (await replay_letters(database, EVERY, by="ann")).letters_total == 0
    done = await discard_letters(database, EVERY, by="ann", reason="test data")
    # No letter is requested between the steps: the first letter of the key is discarded last.
    assert (done.letters_total, done.replays_requested) == (5, 0)
    assert [act["target"]["count"] for act in await operator_acts(database)] == [2, 2, 1, 2, 2, 1]
    assert {row["resolved_reason"] for row in await letter_rows(database)} == {"test data"}


@pytest.mark.guarantee("G42")
async def test_discard_requests_only_what_waited_behind_the_letter(database: Database) -> None:
    [first, second, _third] = await park_letters(database, "a", count=3)
    done = await discard_letters(database, LetterSelection(ids=[second]), by="ann", reason="not needed")
    assert (done.letters_total, done.replays_requested) == (1, 0)
    assert await letter_statuses(database) == ["PARKED", "DISCARDED", "PARKED"]
    done = await discard_letters(database, LetterSelection(ids=[first]), by="ann", reason="not needed")
    assert (done.letters_total, done.replays_requested) == (1, 1)
    assert await letter_statuses(database) == ["DISCARDED", "DISCARDED", "REPLAY_REQUESTED"]
    last = (await letter_rows(database))[2]
    assert (last["resolved_by"], last["resolved_reason"], last["resolved_at"]) == ("ann", "not needed", None)


@pytest.mark.guarantee("G42")
async def test_discard_requests_a_letter_parked_while_it_waited(
    database: Database, superuser: asyncpg.Connection
) -> None:
    [first] = await park_letters(database, "a")
    async with superuser.transaction():
        # A consumer parks the next message of the key: it updates the last letter, then inserts another one.
        await superuser.execute("UPDATE dead_letters SET attempts = attempts WHERE id = $1", first)
        call = asyncio.create_task(
            discard_letters(database, LetterSelection(ids=[first]), by="ann", reason="not needed")
        )

        await wait_for_lock_waits(database, 1)
        copied = "topic, partition, message_key, headers, value, error, attempts, holds_key"
        await superuser.execute(
            f"INSERT INTO dead_letters (consumer_group, message_offset, reason, error_code, {copied}) "
            f"SELECT consumer_group, message_offset + 1, 'BLOCKED', 'KEY_BLOCKED', {copied} FROM dead_letters"
        )
    done = await call
    assert (done.letters_total, done.replays_requested) == (1, 1)
    assert await letter_statuses(database) == ["DISCARDED", "REPLAY_REQUESTED"]


@pytest.mark.guarantee("G42")
async def test_discarded_letter_lets_its_key_flow_again(
    database: Database,
    postgres_settings: PostgresSettings,
    kafka_settings: KafkaSettings,
    topic: str,
    no_retry_pauses: None,
) -> None:
    await make_effects_table(postgres_settings)
    events = [make_event(aggregate_id="a", version=version) for version in (1, 2, 3)]

    async def handle(event: EventEnvelope, unit: EventTransaction) -> None:
        if event == events[0]:
            raise RuntimeError("poison")
        await record_effect(event, unit)

    async with consuming(database, kafka_settings, topic, "projection", handle) as signals:
        publish(kafka_settings, topic, events[:2])
        await signals.wait_for(PARKED, 2)
        selection = LetterSelection(reasons=[LetterReason.HANDLER_FAILED])
        done = await discard_letters(database, selection, by="ann", reason="poison")
        assert (done.letters_total, done.replays_requested) == (1, 1)
        await signals.wait_for(REPLAYED)
        publish(kafka_settings, topic, events[2:])

        async def flowed() -> bool:
            return len(await effects(database)) == 2

        await eventually("the key flows", flowed)
    assert await effects(database) == [event.event_id for event in events[1:]]
    assert await letter_statuses(database) == ["DISCARDED", "REPLAYED"]


@pytest.mark.guarantee("G42")
async def test_named_letters_in_no_suitable_status_are_an_error(database: Database) -> None:
    [first] = await park_letters(database, "a")
    named = LetterSelection(ids=[first])
    await discard_letters(database, named, by="ann", reason="poison")
    with pytest.raises(SelectionEmpty, match="PARKED; `relaybox dead-letters show`"):
        await replay_letters(database, named, by="ann")
    with pytest.raises(SelectionEmpty, match="PARKED or REPLAY_REQUESTED"):
        await discard_letters(database, named, by="ann", reason="poison")
    async with database.connection() as connection:
        with pytest.raises(SelectionEmpty):
            await preview_letters(connection, LetterAction.REPLAY, named, letters_max=9)
        nothing = await preview_letters(connection, LetterAction.REPLAY, EVERY, letters_max=9)
    assert (nothing.letters_total, nothing.letters) == (0, ())
    assert (await discard_letters(database, EVERY, by="ann", reason="poison")).letters_total == 0
    assert len(await operator_acts(database)) == 1
