"""`backend rebuild genesis`: rows are compared with their events, and repaired."""

import asyncio
import os
import sys
from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from backend.cli import app
from backend.genesis import SessionProjection, genesis
from backend.genesis.session import SQL
from backend.rebuilding import Difference, DifferenceKind, HistoryUnreadable
from backend.rebuilding import rebuild as rebuild_rows
from pydantic_core import from_json, to_json
from relaybox.commands import Command, CommandService
from relaybox.db import Database, Executor
from relaybox.outbox import Notifier
from relaybox.settings import PostgresSettings
from shared_types.genesis import GenesisStage
from typer.testing import CliRunner, Result

from tests.fixtures.story import AGENT, STAGES, WRITER, content, proposal

NO_DIFFERENCE = (3, 0, 0)


class Writer:
    """Sends commands to a real database."""

    def __init__(self, database: Database) -> None:
        notifier = Notifier(database)
        self._commands = CommandService(database, [genesis], notifier=notifier, source_service="suite")

    async def send(self, session_id: UUID, command_type: str, payload: dict[str, Any] | None = None) -> UUID:
        request = Command(
            aggregate_id=session_id,
            command_type=command_type,
            payload=payload or {},
            caller=AGENT if command_type.startswith("Report") else WRITER,
            creates=command_type == "CreateSession",
        )
        return (await self._commands.submit(request, domain=genesis)).command_id

    async def finish(self) -> UUID:
        """Play a session from its beginning to its end, with proposals, failures and feedback."""
        session_id = uuid4()
        await self.send(session_id, "CreateSession", {"novel_id": str(uuid4())})
        for stage in STAGES:
            concept = stage is GenesisStage.CONCEPT_SELECTION
            request = "RequestConceptGeneration" if concept else "RequestStageProposal"
            command_id = str(await self.send(session_id, request, {"notes": "雾"}))
            why = {"error_code": "MUSE_FAILED", "message": "no"}
            await self.send(session_id, "ReportFailure", {"command_id": command_id, **why})
            command_id = str(await self.send(session_id, request))
            made = proposal(stage)
            await self.send(session_id, "ReportProposal", {"command_id": command_id, "proposal": made})
            await self.send(session_id, "SubmitFeedback", {"feedback": "more", "rating": 3})
            await self.send(session_id, "ConfirmStage", {"choice": 1, "stage": stage.value})
        return session_id


@pytest.fixture
def writer(database: Database) -> Writer:
    return Writer(database)


@pytest.fixture
async def sessions(writer: Writer) -> tuple[UUID, UUID, UUID]:
    """Create a finished session, one with a pending request, and an abandoned one with own content."""
    finished, waiting, abandoned = await writer.finish(), uuid4(), uuid4()
    await writer.send(waiting, "CreateSession")
    await writer.send(waiting, "RequestConceptGeneration", {"theme_preferences": ["科幻"]})
    await writer.send(abandoned, "CreateSession")
    await writer.send(abandoned, "ConfirmStage", {"content": content(GenesisStage.CONCEPT_SELECTION)})
    await writer.send(abandoned, "AbandonSession")
    return finished, waiting, abandoned


async def rebuild(
    database: Database, *, write: bool, projection: SessionProjection | None = None
) -> tuple[tuple[int, int, int], list[Difference]]:
    """Rebuild; return the numbers of sessions, differences and repairs, and the differences."""
    found: list[Difference] = []
    report = await rebuild_rows(
        database, projection or SessionProjection(), write=write, on_difference=found.append
    )
    return (report.aggregates, report.differences, report.repaired), found


async def rows(database: Database) -> list[Any]:
    columns = "id, novel_id, user_id, status, current_stage, confirmed_data, draft, feedback, version"
    columns += ", created_at"
    async with database.connection() as connection:
        return list(await connection.fetch(f"SELECT {columns} FROM genesis_sessions ORDER BY id"))


async def execute(database: Database, statement: str, *arguments: Any) -> None:
    async with database.connection() as connection:
        await connection.fetch(statement, *arguments)


async def test_rows_written_by_commands_equal_their_events(
    database: Database, sessions: tuple[UUID, ...]
) -> None:
    assert await rebuild(database, write=False) == (NO_DIFFERENCE, [])


async def test_deleted_rows_are_restored(database: Database, sessions: tuple[UUID, ...]) -> None:
    before = await rows(database)
    await execute(database, "DELETE FROM genesis_sessions")
    report, found = await rebuild(database, write=True)
    assert {(one.aggregate_id, one.kind) for one in found} == {
        (one, DifferenceKind.MISSING) for one in sessions
    }
    assert report == (3, 3, 3)
    assert await rows(database) == before
    assert await rebuild(database, write=False) == (NO_DIFFERENCE, [])


@pytest.mark.parametrize(
    ("change", "fields"),
    [
        ("user_id = 'stranger'", ("owner",)),
        ("novel_id = gen_random_uuid()", ("novel_id",)),
        ("status = 'ABANDONED', current_stage = 'WORLDVIEW'", ("status", "current_stage")),
        ("confirmed_data = confirmed_data - 'WORLDVIEW'", ("confirmed_data",)),
        ("draft = NULL", ("draft",)),
        ("draft = '{\"proposal\": 1}'", ("draft",)),
        ('feedback = \'[{"feedback": "no"}]\'', ("feedback",)),
        ("version = version + 7", ("version",)),
    ],
)
async def test_changed_row_is_named_and_repaired(
    database: Database, sessions: tuple[UUID, ...], change: str, fields: tuple[str, ...]
) -> None:
    before = await rows(database)
    await execute(database, f"UPDATE genesis_sessions SET {change} WHERE id = $1", sessions[0])
    report, [found] = await rebuild(database, write=False)
    assert report == (3, 1, 0)
    assert (found.aggregate_id, found.kind) == (sessions[0], DifferenceKind.DIFFERENT)
    assert set(found.parts) == set(fields)
    assert (await rebuild(database, write=True))[0] == (3, 1, 1)
    assert await rows(database) == before


async def test_row_without_events_is_named_and_removed(
    database: Database, sessions: tuple[UUID, ...]
) -> None:
    before = await rows(database)
    invented = uuid4()
    await execute(database, "INSERT INTO genesis_sessions (id, user_id) VALUES ($1, 'w')", invented)
    extra = Difference(aggregate_id=invented, kind=DifferenceKind.EXTRA, parts=(), repaired=False)
    assert (await rebuild(database, write=False))[1] == [extra]
    await rebuild(database, write=True)
    assert await rows(database) == before


async def test_dry_run_changes_nothing(database: Database, sessions: tuple[UUID, ...]) -> None:
    await execute(database, "UPDATE genesis_sessions SET user_id = 'stranger'")
    before = await rows(database)
    await rebuild(database, write=False)
    assert await rows(database) == before


async def test_session_written_during_a_rebuild_is_no_difference(
    database: Database, writer: Writer, sessions: tuple[UUID, ...]
) -> None:
    class AbandonedBeforeRead(SessionProjection):
        abandoned = False

        async def read(self, executor: Executor, aggregate_ids: Sequence[UUID]) -> Any:
            if not self.abandoned:
                self.abandoned = True
                await writer.send(sessions[1], "AbandonSession")
            return await super().read(executor, aggregate_ids)

    assert await rebuild(database, write=True, projection=AbandonedBeforeRead()) == (NO_DIFFERENCE, [])


async def test_commands_work_after_a_repair(
    database: Database, writer: Writer, sessions: tuple[UUID, ...]
) -> None:
    await execute(database, "DELETE FROM genesis_sessions WHERE id = $1", sessions[1])
    await rebuild(database, write=True)
    await writer.send(sessions[1], "AbandonSession")
    assert (await rebuild(database, write=False))[0] == NO_DIFFERENCE


async def test_rebuild_compares_more_sessions_than_one_batch(database: Database, writer: Writer) -> None:
    ids = [uuid4() for _ in range(600)]
    await asyncio.gather(*(writer.send(one, "CreateSession") for one in ids))
    await asyncio.gather(*(writer.send(one, "RequestConceptGeneration") for one in ids))
    await execute(database, "DELETE FROM genesis_sessions WHERE id = ANY($1::uuid[])", ids[::5])
    await execute(database, "INSERT INTO genesis_sessions (user_id) SELECT 'w' FROM generate_series(1, 110)")
    report, found = await rebuild(database, write=True)
    assert report == (600, 230, 230)
    assert {one.aggregate_id for one in found if one.kind is DifferenceKind.MISSING} == set(ids[::5])
    assert (await rebuild(database, write=False))[0] == (600, 0, 0)


@pytest.mark.parametrize(
    ("event_type", "version", "complaint"),
    [
        ("Genesis.Session.Confused", 3, "cannot be read at version 3"),
        ("Genesis.Session.Finished", 5, "lacks"),
    ],
)
async def test_unreadable_history_is_an_error_and_changes_nothing(
    database: Database, sessions: tuple[UUID, ...], event_type: str, version: int, complaint: str
) -> None:
    await execute(
        database,
        "INSERT INTO domain_events (event_id, event_type, aggregate_type, aggregate_id, aggregate_version,"
        " payload) VALUES (gen_random_uuid(), $1, 'GENESIS_SESSION', $2, $3, '{}')",
        event_type,
        str(sessions[1]),
        version,
    )
    before = await rows(database)
    with pytest.raises(HistoryUnreadable, match=complaint):
        await rebuild(database, write=True)
    assert await rows(database) == before


def variables_of(settings: PostgresSettings) -> dict[str, str]:
    return {
        "POSTGRES_HOST": settings.host,
        "POSTGRES_PORT": str(settings.port),
        "POSTGRES_DB": settings.db,
        "POSTGRES_USER": settings.user,
        "POSTGRES_PASSWORD": settings.password.get_secret_value(),
    }


async def backend(settings: PostgresSettings, *arguments: str) -> Result:
    # In a thread, because a command runs its own event loop.
    return await asyncio.to_thread(CliRunner().invoke, app, arguments, env=variables_of(settings))


async def test_rebuild_command_exits_1_until_rows_are_repaired(
    database: Database, postgres_settings: PostgresSettings, sessions: tuple[UUID, ...]
) -> None:
    await execute(database, "UPDATE genesis_sessions SET draft = NULL WHERE id = $1", sessions[1])
    compared = await backend(postgres_settings, "rebuild", "genesis")
    assert (compared.exit_code, compared.stdout.splitlines()) == (
        1,
        [f"{sessions[1]} DIFFERENT in draft", "3 sessions: 1 differ, 0 repaired"],
    )
    written = await backend(postgres_settings, "rebuild", "genesis", "--write", "--json")
    difference, summary = map(from_json, written.stdout.splitlines())
    assert (written.exit_code, summary) == (0, {"sessions": 3, "differences": 1, "repaired": 1})
    assert difference == {
        "session_id": str(sessions[1]),
        "kind": "DIFFERENT",
        "fields": ["draft"],
        "repaired": True,
    }
    assert (await backend(postgres_settings, "rebuild", "genesis")).exit_code == 0


async def test_rebuild_command_reports_unreachable_postgresql_in_one_line(
    postgres_settings: PostgresSettings,
) -> None:
    away = postgres_settings.model_copy(update={"port": 1})
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "from backend.cli import app; app()", "rebuild", "genesis"),
        env={**os.environ, **variables_of(away)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert (process.returncode, out, len(err.splitlines())) == (1, b"", 1)
    assert b"PostgreSQL cannot be reached" in err


async def test_session_list_is_paged_newest_first(database: Database, writer: Writer) -> None:
    ids = [uuid4() for _ in range(5)]
    for one in ids:
        await writer.send(one, "CreateSession")
    async with database.connection() as connection:
        first = await connection.fetch(SQL["list_first"], "writer", 2)
        at = first[-1]["created_at"], first[-1]["id"]
        rest = await connection.fetch(SQL["list_after"], "writer", *at, 10)
        of_stranger = await connection.fetch(SQL["list_first"], "stranger", 2)
    assert [row["id"] for row in [*first, *rest]] == ids[::-1]
    assert not of_stranger


async def test_stale_version_cannot_be_advanced(database: Database, sessions: tuple[UUID, ...]) -> None:
    state = {"id": str(sessions[1]), "owner": "writer", "status": "IN_PROGRESS"}
    state |= {"current_stage": "CONCEPT_SELECTION", "version": 3, "expected_version": 1}
    async with database.connection() as connection:
        assert not await connection.fetch(SQL["advance"], to_json([state]).decode())


async def test_table_refuses_completed_without_finished(database: Database) -> None:
    with pytest.raises(asyncpg.CheckViolationError, match="genesis_sessions_finished_check"):
        await execute(database, "INSERT INTO genesis_sessions (user_id, status) VALUES ('w', 'COMPLETED')")
