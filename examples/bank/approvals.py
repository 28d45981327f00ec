"""Wait until the owner of an account decides on a large transfer; refuse the transfer after three days."""

from contextlib import suppress
from datetime import timedelta
from itertools import count
from typing import Any
from uuid import UUID

from accounts import DECIDED, REQUESTED, TransferNotWaiting
from bank import backbone
from relaybox.consumers import EventTransaction, subscribe
from relaybox.flows import Flow, FlowExpired, flow, start_flow
from relaybox_types.envelope import EventEnvelope

TIMEOUT = timedelta(days=3)


@flow("Bank.Approval", event_types=[DECIDED.name])
async def approval(current: Flow, arguments: dict[str, Any]) -> None:
    account, transfer_id = arguments["account_id"], str(current.id)
    try:
        for number in count(1):
            name = f"decision {number}"
            decided = await current.wait_for(DECIDED.name, account, timeout=TIMEOUT, name=name)
            if decided.payload["transfer_id"] == transfer_id:
                return
    except FlowExpired:
        refusal = {"transfer_id": transfer_id}
        with suppress(TransferNotWaiting):  # the owner has decided at the last moment
            await current.command(backbone.commands, UUID(account), "RefuseTransfer", refusal)


@subscribe(REQUESTED, group="approvals")
async def ask(event: EventEnvelope, unit: EventTransaction) -> None:
    transfer_id = UUID(event.payload["transfer"]["transfer_id"])
    await start_flow(
        unit.db,
        approval,
        {"account_id": event.aggregate_id},
        flow_id=transfer_id,
        chain_id=event.correlation_id,
        events_since=event.timestamp,
    )
