"""The bank of the examples keeps all money while its processes are killed."""

import asyncio
import random
import runpy
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from itertools import accumulate
from pathlib import Path
from uuid import UUID

import pytest
from relaybox.db import Database, Migrations
from relaybox.settings import KafkaSettings, PostgresSettings

from tests.fixtures.bank import BANK, BankProcesses, Customer, copy_bank, settled_books
from tests.fixtures.processes import server_environment

ACCOUNTS = 4
DEPOSIT = 1_000
CLIENTS_PER_API = 2
ROUNDS = [
    pytest.param(1, 8, 20, id="short"),
    pytest.param(2, 200, 500, id="long", marks=[pytest.mark.long, pytest.mark.timeout(7_200)]),
]


@pytest.fixture(scope="session")
def migrations() -> tuple[Migrations, ...]:
    return runpy.run_path(str(BANK / "tables.py"))["MIGRATIONS"]


@pytest.fixture
async def bank(
    postgres_settings: PostgresSettings, kafka_settings: KafkaSettings, tmp_path: Path
) -> AsyncIterator[BankProcesses]:
    copy_bank(tmp_path / "bank")
    environment = server_environment(postgres_settings, kafka_settings) | {
        "RELAY_LEASE_S": "1",
        "RELAY_POLL_INTERVAL": "0.2",
    }
    bank = BankProcesses(tmp_path / "bank", environment)
    for name in bank.names:
        bank.start(name)
    yield bank
    for name in bank.names:
        bank.kill(name)


@pytest.mark.guarantee("G02", "G40", "G63")
@pytest.mark.parametrize(("seed", "kills", "transfers"), ROUNDS)
async def test_bank_keeps_all_money_while_processes_are_killed(
    bank: BankProcesses, database: Database, seed: int, kills: int, transfers: int
) -> None:
    chance = random.Random(seed)
    async with AsyncExitStack() as stack:
        customers = [Customer(client=await stack.enter_async_context(one)) for one in bank.clients("ann")]
        accounts = await asyncio.gather(*(customers[0].open(DEPOSIT) for _ in range(ACCOUNTS)))
        killing = asyncio.create_task(kill_processes(bank, random.Random(chance.random()), kills))
        each = (
            send_money(customer, accounts, random.Random(chance.random()), transfers)
            for customer in customers * CLIENTS_PER_API
        )
        accepted = [transfer for sent in await asyncio.gather(*each) for transfer in sent]
        await killing
        books = await settled_books(database)

    assert sum(books.balances.values()) == ACCOUNTS * DEPOSIT
    assert sorted(books.transfers["MoneySent"]) == sorted(accepted)
    ended = books.transfers["MoneyReceived"] + books.transfers["MoneyReturned"]
    assert sorted(ended) == sorted(accepted)
    assert books.transfers["MoneyReturned"]
    for account, changes in books.changes.items():
        assert min(accumulate(changes)) >= 0
        assert sum(changes) == books.balances[account] == books.projected[account]


async def send_money(
    customer: Customer, accounts: list[str], chance: random.Random, transfers: int
) -> list[str]:
    """Send transfers, some of them too large or to unknown accounts; return the ids of those accepted."""
    accepted: list[str] = []
    for _ in range(transfers):
        unknown = str(UUID(int=chance.getrandbits(128), version=4))
        receiver = unknown if chance.random() < 0.2 else chance.choice(accounts)
        response = await customer.command(
            chance.choice(accounts), "TransferMoney", to=receiver, cents=chance.randint(1, DEPOSIT)
        )
        if response.status_code == 200:
            accepted.append(response.json()["command_id"])
        else:
            assert (response.status_code, response.json()["error_code"]) == (422, "INSUFFICIENT_FUNDS")
    return accepted


async def kill_processes(bank: BankProcesses, chance: random.Random, kills: int) -> None:
    """Kill and restart processes after random times, from before they are ready to seconds later."""
    for _ in range(kills):
        await asyncio.sleep(chance.uniform(0.1, 4.0))
        name = chance.choice(bank.names)
        bank.kill(name)
        bank.start(name)
