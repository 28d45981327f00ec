"""The domain of the bank: accounts, and what happens to their money. Pure: no database, no framework."""

from collections.abc import Mapping
from typing import Annotated, Any, Self
from uuid import UUID

from pydantic import BaseModel, Field
from relaybox.commands import Aggregate, CommandRefused, Domain, Event, Events


class Account(Aggregate):
    balance: int = 0  # in cents

    def apply(self, event: Event) -> Self:
        return self.model_copy(update={"balance": self.balance + change_of(event.type, event.payload)})


accounts = Domain("Bank.Account", aggregate=Account, aggregate_type="ACCOUNT")
OPENED = accounts.event("Opened")
DEPOSITED = accounts.event("MoneyDeposited")
SENT = accounts.event("MoneySent")


def change_of(event_type: str, payload: Mapping[str, Any]) -> int:
    """Return by how many cents an event changes the balance of its account."""
    cents = payload.get("cents", 0)
    return -cents if event_type == SENT.name else cents


Cents = Annotated[int, Field(strict=True, gt=0, le=100_000_000_000)]


class OpenAccount(BaseModel):
    pass


class DepositMoney(BaseModel):
    cents: Cents


class TransferMoney(BaseModel):
    to: UUID
    cents: Cents


class InsufficientFunds(CommandRefused):
    error_code = "INSUFFICIENT_FUNDS"


@accounts.command(creates=True)
def open_account(account: Account, _: OpenAccount) -> Events:
    return [OPENED({"owner": account.owner})]


@accounts.command
def deposit(_: Account, command: DepositMoney) -> Events:
    return [DEPOSITED({"cents": command.cents})]


@accounts.command(refuses=[InsufficientFunds])
def transfer(account: Account, command: TransferMoney, command_id: UUID) -> Events:
    if command.cents > account.balance:
        raise InsufficientFunds(f"the balance is {account.balance} cents; transfer at most this amount")
    return [SENT({"transfer_id": str(command_id), "to": str(command.to), "cents": command.cents})]


RECEIVED = accounts.event("MoneyReceived")
RETURNED = accounts.event("MoneyReturned")


class ReceiveMoney(BaseModel):
    transfer_id: UUID
    cents: Cents


class ReturnMoney(BaseModel):
    transfer_id: UUID
    cents: Cents


@accounts.command(internal=True)
def receive(_: Account, command: ReceiveMoney) -> Events:
    return [RECEIVED(command.model_dump(mode="json"))]


@accounts.command(internal=True)
def take_back(_: Account, command: ReturnMoney) -> Events:
    return [RETURNED(command.model_dump(mode="json"))]
