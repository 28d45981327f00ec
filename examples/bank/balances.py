"""A projection: the balances of all accounts of an owner, updated by a consumer."""

from typing import Annotated
from uuid import UUID

from accounts import OPENED, accounts, change_of
from bank import backbone
from fastapi import APIRouter, Depends
from pydantic import BaseModel
from relaybox.consumers import EventTransaction, subscribe
from relaybox.http import Principal, bearer
from relaybox_types.envelope import EventEnvelope
from sqlalchemy import text

INSERT = text("INSERT INTO balances (account_id, owner, balance) VALUES (:account_id, :owner, 0)")
ADD = text("UPDATE balances SET balance = balance + :change WHERE account_id = :account_id")
READ = "SELECT account_id, balance FROM balances WHERE owner = $1 ORDER BY account_id"


@subscribe(*accounts.event_types, group="balances")
async def update_balance(event: EventEnvelope, unit: EventTransaction) -> None:
    account_id = UUID(event.aggregate_id)
    if event.event_type == OPENED.name:
        await unit.db.execute(INSERT, {"account_id": account_id, "owner": event.payload["owner"]})
    else:
        change = change_of(event.event_type, event.payload)
        await unit.db.execute(ADD, {"account_id": account_id, "change": change})


class Balance(BaseModel):
    account_id: UUID
    balance: int


router = APIRouter()


@router.get("/balances")
async def list_balances(owner: Annotated[Principal, Depends(bearer(backbone.verifier))]) -> list[Balance]:
    async with backbone.database.connection() as connection:
        return [Balance(**row) for row in await connection.fetch(READ, owner.subject)]
