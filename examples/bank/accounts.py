"""The domain of the bank: accounts, and what happens to their money. Pure: no database, no framework."""

from collections.abc import Mapping
from typing import Annotated, Any, Self
from uuid import UUID

from pydantic import BaseModel, Field
from relaybox.commands import Aggregate, CommandRefused, Domain, Event, Events


class Account(Aggregate):
    balance: int = 0  # in cents
    waiting: dict[str, Any] | None = None  # the transfer that waits for a decision

    def apply(self, event: Event) -> Self:
        changes: dict[str, Any] = {"balance": self.balance + change_of(event.type, event.payload)}
        if event.type in (REQUESTED.name, DECIDED.name):
            changes["waiting"] = event.payload.get("transfer")
        return self.model_copy(update=changes)


accounts = Domain("Bank.Account", aggregate=Account, aggregate_type="ACCOUNT")
OPENED = accounts.event("Opened")
DEPOSITED = accounts.event("MoneyDeposited")
SENT = accounts.event("MoneySent")
REQUESTED = accounts.event("TransferRequested")
DECIDED = accounts.event("TransferDecided")


def change_of(event_type: str, payload: Mapping[str, Any]) -> int:
    """Return by how many cents an event changes the balance of its account."""
    cents = payload.get("cents", 0)
    return -cents if event_type == SENT.name else cents


LIMIT_CENTS = 100_000  # a larger transfer waits for the owner's approval
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


class TransferWaiting(CommandRefused):
    error_code = "TRANSFER_WAITING"


@accounts.command(creates=True)
def open_account(account: Account, _: OpenAccount) -> Events:
    return [OPENED({"owner": account.owner})]


@accounts.command
def deposit(_: Account, command: DepositMoney) -> Events:
    return [DEPOSITED({"cents": command.cents})]


@accounts.command(refuses=[InsufficientFunds, TransferWaiting])
def transfer(account: Account, command: TransferMoney, command_id: UUID) -> Events:
    payload = {"transfer_id": str(command_id), "to": str(command.to), "cents": command.cents}
    sent = send(account, payload)
    if command.cents <= LIMIT_CENTS:
        return [sent]
    if account.waiting is not None:
        raise TransferWaiting(f"first approve or refuse transfer {account.waiting['transfer_id']}")
    return [REQUESTED({"transfer": payload})]


def send(account: Account, payload: dict[str, Any]) -> Event:
    if payload["cents"] > account.balance:
        raise InsufficientFunds(f"the balance is {account.balance} cents; transfer at most this amount")
    return SENT(payload)


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


class ApproveTransfer(BaseModel):
    transfer_id: UUID


class RefuseTransfer(BaseModel):
    transfer_id: UUID


class TransferNotWaiting(CommandRefused):
    error_code = "TRANSFER_NOT_WAITING"


@accounts.command(refuses=[TransferNotWaiting, InsufficientFunds])
def approve(account: Account, command: ApproveTransfer) -> Events:
    return [decide(account, command.transfer_id, approved=True), send(account, account.waiting or {})]


@accounts.command(refuses=[TransferNotWaiting])
def refuse(account: Account, command: RefuseTransfer) -> Events:
    return [decide(account, command.transfer_id, approved=False)]


def decide(account: Account, transfer_id: UUID, *, approved: bool) -> Event:
    if account.waiting is None or account.waiting["transfer_id"] != str(transfer_id):
        raise TransferNotWaiting(f"transfer {transfer_id} does not wait for a decision")
    return DECIDED({"transfer_id": str(transfer_id), "approved": approved})
