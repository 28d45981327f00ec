"""Several services that write to one aggregate concurrently, as the processes of a product do."""

import asyncio
from collections import Counter
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from relaybox.commands import CommandResult, CommandService, DuplicateCommand

from tests.fixtures.counters import AGENT, submit

ROUNDS = 10


@pytest.fixture
def services(make_service) -> list[CommandService]:
    return [make_service(), make_service()]


async def all_at_once(services: list[CommandService], counter_id: UUID, count: int) -> list[Any]:
    return await asyncio.gather(
        *(submit(services[place % len(services)], "RequestCount", counter_id) for place in range(count)),
        return_exceptions=True,
    )


@pytest.mark.guarantee("G03")
async def test_one_of_64_identical_pending_commands_is_recorded(
    services: list[CommandService], written
) -> None:
    for _ in range(ROUNDS):
        counter_id = (await submit(services[0], "CreateCounter")).aggregate_id
        answers = await all_at_once(services, counter_id, 64)

        (taken,) = [one for one in answers if isinstance(one, CommandResult)]
        duplicates = [one for one in answers if isinstance(one, DuplicateCommand)]
        assert len(duplicates) == 63
        assert {one.duplicate_command_id for one in duplicates} == {taken.command_id}
        assert (await written(counter_id)).version == 2


@pytest.mark.guarantee("G03")
async def test_settlement_during_a_race_lets_one_more_command_succeed(
    services: list[CommandService], written
) -> None:
    for _ in range(ROUNDS):
        counter_id = (await submit(services[0], "CreateCounter")).aggregate_id
        first = await submit(services[0], "RequestCount", counter_id)

        answers, _settled = await asyncio.gather(
            all_at_once(services, counter_id, 32),
            submit(
                services[1],
                "ReportCount",
                counter_id,
                caller=AGENT,
                command_id=str(first.command_id),
                found=0,
            ),
        )

        taken = [one for one in answers if isinstance(one, CommandResult)]
        duplicates = {one.duplicate_command_id for one in answers if isinstance(one, DuplicateCommand)}
        assert len(taken) <= 1
        assert len(taken) + sum(isinstance(one, DuplicateCommand) for one in answers) == 32
        assert duplicates <= {first.command_id, *(one.command_id for one in taken)}
        assert (await written(counter_id)).version == 3 + len(taken)


@pytest.mark.guarantee("G04")
async def test_commands_of_three_services_on_one_aggregate_are_all_recorded(
    services: list[CommandService], make_service, counter_id: UUID, written
) -> None:
    services = [*services, make_service()]

    async def send(service: CommandService) -> list[int]:
        return [(await submit(service, "Increase", counter_id)).version for _ in range(40)]

    versions = await asyncio.gather(*(send(service) for service in services for _ in range(2)))

    seen = Counter(version for one in versions for version in one)
    assert seen == Counter(range(2, 242))
    assert all(one == sorted(one) for one in versions)
    look = await written(counter_id)
    assert (look.version, look.total, look.commands) == (241, 240, 241)


@pytest.mark.guarantee("G04")
async def test_batches_lock_in_the_order_of_ids_without_deadlock(
    services: list[CommandService], superuser: asyncpg.Connection, until_blocked
) -> None:
    made = await asyncio.gather(*(submit(services[0], "CreateCounter") for _ in range(2)))
    smaller, larger = sorted(one.aggregate_id for one in made)
    async with superuser.transaction():
        await superuser.execute("SELECT FROM aggregate_snapshots WHERE id = $1 FOR UPDATE", smaller)
        batch = asyncio.gather(*(submit(services[0], "Increase", one) for one in (larger, smaller)))
        await until_blocked()
        await superuser.execute("SELECT FROM aggregate_snapshots WHERE id = $1 FOR UPDATE NOWAIT", larger)
    assert [one.version for one in await batch] == [2, 2]
