"""A command in the caller's own transaction."""

from uuid import UUID, uuid4

import pytest
from relaybox.commands import (
    AggregateNotFound,
    CommandResult,
    CommandService,
    DuplicateCommand,
    UnknownCommand,
)
from relaybox.db import Database, Isolation, RetryTransaction
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from tests.fixtures.counters import ADA, BOB, submit

ISOLATIONS: tuple[Isolation, ...] = ("READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE")


async def begun(db: AsyncSession, isolation: Isolation) -> None:
    """Begin the caller's transaction and take its snapshot."""
    await db.connection(execution_options={"isolation_level": isolation})
    await db.execute(text("SELECT 1"))


@pytest.mark.guarantee("G01")
@pytest.mark.parametrize("isolation", ISOLATIONS)
async def test_command_is_written_if_the_caller_commits(
    service: CommandService, database: Database, counter_id: UUID, written, isolation: Isolation
) -> None:
    async with database.sessions() as db:
        await begun(db, isolation)
        result = await service.process_command(counter_id, "Increase", {"by": 5}, db, caller=ADA)
        assert (await written(counter_id)).version == 1
        await db.commit()
    assert (result.status, result.version) == ("COMPLETED", 2)
    assert (await written(counter_id)).total == 5


@pytest.mark.guarantee("G01")
@pytest.mark.parametrize("isolation", ISOLATIONS)
async def test_command_is_not_written_if_the_caller_rolls_back(
    service: CommandService, database: Database, counter_id: UUID, written, isolation: Isolation
) -> None:
    before = await written(counter_id)
    async with database.sessions() as db:
        await begun(db, isolation)
        await service.process_command(counter_id, "Increase", {}, db)
        await db.rollback()
    assert await written(counter_id) == before


async def test_isolation_is_that_of_the_callers_transaction(
    service: CommandService, database: Database, counter_id: UUID
) -> None:
    for isolation in ISOLATIONS:
        async with database.sessions() as db:
            await begun(db, isolation)
            await service.process_command(counter_id, "Increase", {}, db)
            assert await db.scalar(text("SHOW transaction_isolation")) == isolation.lower()


async def test_second_command_of_a_transaction_sees_the_first(
    service: CommandService, database: Database, counter_id: UUID, written
) -> None:
    async def both(db: AsyncSession) -> list[CommandResult]:
        return [await service.process_command(counter_id, "Increase", {"by": by}, db) for by in (1, 2)]

    assert [one.version for one in await database.run_in_transaction(both)] == [2, 3]
    assert (await written(counter_id)).total == 3


async def test_command_can_create_an_aggregate(service: CommandService, database: Database, written) -> None:
    new = uuid4()

    async def create(db: AsyncSession) -> CommandResult:
        return await service.process_command(new, "CreateCounter", {"start": 4}, db, caller=ADA)

    assert (await database.run_in_transaction(create)).version == 1
    assert (await written(new)).total == 4


@pytest.mark.guarantee("G03")
@pytest.mark.parametrize("isolation", ISOLATIONS)
async def test_pending_command_makes_the_next_a_duplicate_with_its_id(
    service: CommandService, database: Database, counter_id: UUID, isolation: Isolation
) -> None:
    pending = await submit(service, "RequestCount", counter_id)
    async with database.sessions() as db:
        await begun(db, isolation)
        with pytest.raises(DuplicateCommand) as refused:
            await service.process_command(counter_id, "RequestCount", {}, db)
        assert await db.scalar(text("SELECT 1")) == 1
    assert refused.value.duplicate_command_id == pending.command_id


@pytest.mark.guarantee("G04")
@pytest.mark.parametrize("isolation", ISOLATIONS[1:])
async def test_lost_race_is_not_retried_in_the_callers_transaction(
    service: CommandService, database: Database, counter_id: UUID, written, isolation: Isolation
) -> None:
    async with database.sessions() as db:
        await begun(db, isolation)
        await submit(service, "Increase", counter_id)
        with pytest.raises(RetryTransaction):
            await service.process_command(counter_id, "Increase", {}, db)
        await db.rollback()
    assert (await written(counter_id)).version == 2


@pytest.mark.guarantee("G03")
async def test_loser_of_a_pending_race_gets_the_winners_id_on_retry(
    service: CommandService, database: Database, counter_id: UUID, written
) -> None:
    attempts: list[CommandResult] = []

    async def late(db: AsyncSession) -> CommandResult:
        await db.execute(text("SELECT 1"))
        if not attempts:
            attempts.append(await submit(service, "RequestCount", counter_id))
        return await service.process_command(counter_id, "RequestCount", {}, db)

    with pytest.raises(DuplicateCommand) as refused:
        await database.run_in_transaction(late)
    assert refused.value.duplicate_command_id == attempts[0].command_id
    assert (await written(counter_id)).commands == 2


@pytest.mark.guarantee("G03")
async def test_violation_of_the_unique_index_is_a_duplicate(
    service: CommandService, database: Database, counter_id: UUID, superuser
) -> None:
    """The constraint finds an inbox row that another transaction wrote after the snapshot."""
    async with database.sessions() as db:
        await begun(db, "REPEATABLE READ")
        await superuser.execute(
            "INSERT INTO command_inbox (session_id, command_type) VALUES ($1, 'RequestCount')", counter_id
        )
        with pytest.raises(RetryTransaction, match="idx_command_inbox_unique_pending_command"):
            await service.process_command(counter_id, "RequestCount", {}, db)


@pytest.mark.guarantee("G81")
async def test_caller_argument_hides_aggregates_of_other_users(
    service: CommandService, database: Database, counter_id: UUID
) -> None:
    async with database.sessions() as db:
        for one in (counter_id, uuid4()):
            with pytest.raises(AggregateNotFound, match=f"aggregate {one} does not exist"):
                await service.process_command(one, "Increase", {}, db, caller=BOB)


async def test_error_names_an_unknown_command(service: CommandService, database: Database) -> None:
    async with database.sessions() as db:
        with pytest.raises(UnknownCommand, match="'Explode'"):
            await service.process_command(uuid4(), "Explode", {}, db)
