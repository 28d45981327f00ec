"""Application factories for uvicorn that the benchmarks compare with the product.

For ``commands.py``:

* ``create_naive``: an endpoint with FastAPI and SQLAlchemy that loads the session, inserts the same rows as
  the product one by one, and commits, with REPEATABLE READ. Token check, rules and documents are the same.
* ``create_no_database``: the endpoint of the product, which responds without using the database.

For ``relay.py``: ``create_switched``, the product's API with a switch for its notifier.
"""

import mmap
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

from _notifier import SWITCH
from backend.api import create_api
from backend.genesis.session import genesis
from fastapi import Depends, FastAPI, HTTPException
from pydantic_core import from_json, to_json
from relaybox.commands import Caller, Command, CommandResult
from relaybox.commands._decide import LoadedAggregate, decide
from relaybox.db import Database
from relaybox.http import Backbone, Principal, SharedSecretVerifier, bearer, command_router, create_app
from relaybox.outbox import Notifier, OutboxSettings
from relaybox.settings import JwtSettings, PostgresSettings, load_settings
from relaybox.telemetry import configure_logging
from relaybox_types.api import CommandAccepted, CommandRequest
from sqlalchemy import Enum, func, select
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.orm.attributes import flag_modified
from sqlalchemy.orm.exc import StaleDataError

__all__ = ("create_naive", "create_no_database", "create_switched")

_ATTEMPTS = 5
PREFIX = "/api/v1/genesis/sessions"
_ON = b"1"
_OUTBOX = OutboxSettings()


class Base(DeclarativeBase):
    """Base class of the SQLAlchemy models of the compared application."""


class Session(Base):
    """Model of the table ``genesis_sessions``."""

    __tablename__ = "genesis_sessions"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    novel_id: Mapped[UUID | None]
    user_id: Mapped[str]
    status: Mapped[str] = mapped_column(Enum("IN_PROGRESS", "COMPLETED", "ABANDONED", name="genesis_status"))
    current_stage: Mapped[str] = mapped_column(
        Enum("CONCEPT_SELECTION", "STORY_CONCEPTION", "FINISHED", name="genesis_stage")
    )
    confirmed_data: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    draft: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    feedback: Mapped[list[dict[str, Any]]] = mapped_column(JSONB)
    version: Mapped[int] = mapped_column()
    __mapper_args__ = {"version_id_col": version}  # noqa: RUF012


class Inbox(Base):
    """Model of the table ``command_inbox``."""

    __tablename__ = "command_inbox"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    session_id: Mapped[UUID]
    command_type: Mapped[str]
    payload: Mapped[dict[str, Any]] = mapped_column(JSONB)
    status: Mapped[str] = mapped_column(Enum("RECEIVED", "COMPLETED", name="command_status"))


class Event(Base):
    """Model of the table ``domain_events``."""

    __tablename__ = "domain_events"
    id: Mapped[int] = mapped_column(primary_key=True)
    event_id: Mapped[UUID]
    correlation_id: Mapped[UUID]
    causation_id: Mapped[UUID | None]
    event_type: Mapped[str]
    aggregate_type: Mapped[str]
    aggregate_id: Mapped[str]
    aggregate_version: Mapped[int]
    payload: Mapped[dict[str, Any]] = mapped_column(JSONB)
    metadata_: Mapped[dict[str, Any]] = mapped_column("metadata", JSONB)


class Outbox(Base):
    """Model of the table ``event_outbox``."""

    __tablename__ = "event_outbox"
    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=func.gen_random_uuid())
    topic: Mapped[str]
    key: Mapped[str]
    payload: Mapped[dict[str, Any]] = mapped_column(JSONB)


def create_naive() -> FastAPI:
    """Create the application with the endpoint in FastAPI and SQLAlchemy."""
    configure_logging("naive", "WARNING")
    database = Database(load_settings(PostgresSettings), application_name="naive")
    engine = database.engine.execution_options(isolation_level="REPEATABLE READ")
    sessions = async_sessionmaker(engine, expire_on_commit=False)
    authenticated = Depends(bearer(SharedSecretVerifier(load_settings(JwtSettings))))
    app = FastAPI()

    @app.post(PREFIX + "/{session_id}/commands")
    async def send(
        session_id: UUID, body: CommandRequest, principal: Annotated[Principal, authenticated]
    ) -> CommandAccepted:
        caller = Caller(actor=principal.subject, source_service="naive")
        command = Command(
            aggregate_id=session_id, command_type=body.command_type, payload=body.payload, caller=caller
        )
        for _ in range(_ATTEMPTS):
            try:
                async with sessions() as db, db.begin():
                    status = await _take(db, command)
                return CommandAccepted(command_id=command.command_id, status=status, message="done")
            except (DBAPIError, StaleDataError):
                # Two requests for one session conflicted; the simplest remedy is a retry.
                continue
        raise HTTPException(503)

    _ = send
    return app


async def _take(db: Any, command: Command) -> Any:
    session = await db.get(Session, command.aggregate_id)
    if session is None or session.user_id != command.caller.actor:
        raise HTTPException(404)
    pending = select(Inbox.command_type, Inbox.id).where(
        Inbox.session_id == command.aggregate_id, Inbox.status == "RECEIVED"
    )
    waiting = {name: str(one) for name, one in (await db.execute(pending)).all()}
    loaded = LoadedAggregate(owner=session.user_id, state=_state(session), pending=waiting)
    decision = decide(genesis, command, loaded, _OUTBOX)
    await _insert(db, session, decision)
    return decision.status


async def _insert(db: Any, session: Session, decision: Any) -> None:
    command = decision.command
    db.add(
        Inbox(
            id=command.command_id,
            session_id=command.aggregate_id,
            command_type=command.command_type,
            payload=dict(command.payload),
            status=decision.status.value,
        )
    )
    await db.flush()
    for event_id, text in decision.events:
        envelope = from_json(text)
        names = ("correlation_id", "causation_id", "event_type", "aggregate_type", "aggregate_id", "payload")
        db.add(
            Event(
                event_id=event_id,
                aggregate_version=envelope["version"],
                metadata_=envelope["metadata"],
                **{name: envelope[name] for name in names},
            )
        )
        await db.flush()
        db.add(Outbox(topic=decision.topic, key=envelope["aggregate_id"], payload=envelope))
        await db.flush()
    after = from_json(decision.snapshot)
    session.feedback = after["feedback"]
    # The column keeps the last eight pieces of feedback. If all eight equal the new piece, the column does
    # not change, but the version must be incremented.
    flag_modified(session, "feedback")
    await db.flush()


def _state(session: Session) -> str:
    names = ("id", "novel_id", "status", "current_stage", "confirmed_data", "draft", "feedback", "version")
    return to_json({**{name: getattr(session, name) for name in names}, "owner": session.user_id}).decode()


class WithoutDatabase(Backbone):
    """A backbone that accepts every command immediately and writes nothing."""

    async def submit(self, domain: Any, command: Command) -> CommandResult:
        """Return the result of a completed command."""
        del domain
        return CommandResult(
            command_id=command.command_id,
            status="COMPLETED",
            message="Command processed successfully",
            aggregate_id=command.aggregate_id,
            version=1,
            aggregate=None,
        )


def create_no_database() -> FastAPI:
    """Create the application with the product's endpoint, which does not use the database."""
    configure_logging("no-database", "WARNING")
    verifier = SharedSecretVerifier(load_settings(JwtSettings))
    database = Database(load_settings(PostgresSettings), application_name="no-database")
    backbone = WithoutDatabase(database, [genesis], verifier=verifier)
    app = create_app(
        title="no database", version="0", lifespan=backbone.lifespan, checks={}, registry=backbone.registry
    )
    app.include_router(command_router(backbone, genesis), prefix=PREFIX)
    return app


def create_switched() -> FastAPI:
    """Create the product's API; its notifier is on while the file in ``BENCH_SWITCH`` begins with 1.

    The file is memory-mapped, so that all workers switch at the same time, without a system call per command.
    """
    with Path(os.environ[SWITCH]).open("r+b") as file:
        switch = mmap.mmap(file.fileno(), 1)
    tell = Notifier.notify

    def notify(self: Notifier, keys: Iterable[str]) -> None:
        if switch[:1] == _ON:
            tell(self, keys)

    Notifier.notify = notify
    return create_api()
