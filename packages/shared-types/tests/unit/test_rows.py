"""The row models: required fields, defaults and conversions."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic import BaseModel, ValidationError
from shared_types import CommandStatus, HandleStatus, OutboxStatus, TaskStatus, rows

NOW = datetime(2026, 1, 2, tzinfo=UTC)
ID = uuid4()
MODELS: list[tuple[type[BaseModel], dict[str, Any]]] = [
    (
        rows.DomainEvent,
        {
            "id": 1,
            "event_id": ID,
            "event_type": "A.B.Created",
            "aggregate_type": "A",
            "aggregate_id": "1",
            "aggregate_version": 1,
            "created_at": NOW,
        },
    ),
    (rows.CommandInbox, {"id": ID, "session_id": ID, "command_type": "Go", "created_at": NOW}),
    (rows.AsyncTask, {"id": ID, "task_type": "count", "created_at": NOW, "updated_at": NOW}),
    (
        rows.EventOutbox,
        {"id": ID, "seq": 1, "topic": "t", "key_hash": -5, "payload": {"a": 1}, "created_at": NOW},
    ),
    (
        rows.DeadLetter,
        {
            "id": 1,
            "consumer_group": "g",
            "topic": "t",
            "partition": 0,
            "message_offset": 5,
            "headers": [],
            "reason": "HANDLER_FAILED",
            "error_code": "E",
            "error": "E: text",
            "attempts": 4,
            "holds_key": True,
            "parked_at": NOW,
        },
    ),
    (
        rows.FlowResumeHandle,
        {"id": ID, "correlation_id": "c", "resume_handle": {}, "created_at": NOW, "updated_at": NOW},
    ),
    (rows.GenesisSession, {"id": ID, "user_id": "ada", "created_at": NOW, "updated_at": NOW}),
    (rows.IdempotencyCache, {"key": "k", "result": {}, "created_at": NOW, "expires_at": NOW}),
]
NAMES = [model.__name__ for model, _ in MODELS]


def test_each_table_has_a_model() -> None:
    assert sorted(NAMES) == sorted(rows.__all__)


@pytest.mark.parametrize(("model", "least"), MODELS, ids=NAMES)
def test_required_fields_are_sufficient_and_necessary(model: type[BaseModel], least: dict[str, Any]) -> None:
    assert model.model_validate(least)
    assert {name for name, field in model.model_fields.items() if field.is_required()} == set(least)
    for name in least:
        with pytest.raises(ValidationError, match=name):
            model.model_validate({key: value for key, value in least.items() if key != name})


@pytest.mark.parametrize(("model", "least"), MODELS, ids=NAMES)
def test_row_survives_json_and_is_immutable(model: type[BaseModel], least: dict[str, Any]) -> None:
    row = model.model_validate(least)
    assert model.model_validate_json(row.model_dump_json()) == row
    with pytest.raises(ValidationError, match="frozen"):
        setattr(row, next(iter(least)), None)


@pytest.mark.parametrize(("model", "least"), MODELS, ids=NAMES)
def test_time_without_a_zone_is_refused(model: type[BaseModel], least: dict[str, Any]) -> None:
    name = "parked_at" if model is rows.DeadLetter else "created_at"
    with pytest.raises(ValidationError, match=name):
        model.model_validate(least | {name: NOW.replace(tzinfo=None)})


def test_default_states_are_those_of_the_tables() -> None:
    by_model = {model: model.model_validate(least) for model, least in MODELS}
    assert by_model[rows.CommandInbox].status is CommandStatus.RECEIVED
    assert by_model[rows.AsyncTask].status is TaskStatus.PENDING
    assert by_model[rows.EventOutbox].status is OutboxStatus.PENDING
    assert by_model[rows.FlowResumeHandle].status is HandleStatus.PENDING_PAUSE


def test_labels_and_ids_are_converted_from_text() -> None:
    row = rows.CommandInbox(
        id=str(ID), session_id=str(ID), command_type="Go", status="FAILED", created_at="2026-01-02T00:00:00Z"
    )
    assert (row.id, row.status, row.created_at) == (ID, CommandStatus.FAILED, NOW)
    assert isinstance(row.id, UUID)
    with pytest.raises(ValidationError, match="status"):
        rows.CommandInbox(id=ID, session_id=ID, command_type="Go", status="DONE", created_at=NOW)


@pytest.mark.parametrize(("value", "taken"), [("12.5", True), (100, True), (100.01, False), (-1, False)])
def test_progress_is_a_percentage_with_two_places(value: Any, taken: bool) -> None:
    least = dict(MODELS)[rows.AsyncTask] | {"progress": value}
    if taken:
        assert rows.AsyncTask.model_validate(least).progress == Decimal(str(value))
    else:
        with pytest.raises(ValidationError, match="progress"):
            rows.AsyncTask.model_validate(least)
