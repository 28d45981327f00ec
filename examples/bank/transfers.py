"""The second half of a transfer: credit the receiver, or return the money to the sender."""

from uuid import UUID

from accounts import SENT
from bank import backbone
from relaybox.commands import AggregateNotFound, Caller
from relaybox.consumers import EventTransaction, subscribe
from relaybox_types.envelope import EventEnvelope


@subscribe(SENT, group="transfers")
async def deliver(event: EventEnvelope, unit: EventTransaction) -> None:
    sender, receiver = UUID(event.aggregate_id), UUID(event.payload["to"])
    payload = {name: event.payload[name] for name in ("transfer_id", "cents")}
    process, caller = backbone.commands.process_command, Caller.following(event, service="transfers")
    try:
        await process(receiver, "ReceiveMoney", payload, unit.db, caller=caller)
    except AggregateNotFound:
        await process(sender, "ReturnMoney", payload, unit.db, caller=caller)
