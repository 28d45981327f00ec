"""Example: a command over HTTP, its event on Kafka, and a consumer that submits another command."""

from typing import Self
from uuid import UUID

from pydantic import BaseModel, PositiveInt
from relaybox.commands import Aggregate, Caller, Domain, Event, Events
from relaybox.consumers import EventTransaction, subscribe
from relaybox.db import BACKBONE
from relaybox.http import Backbone, aggregate_router, create_app
from relaybox.telemetry import check_postgres
from relaybox_types.envelope import EventEnvelope


class Order(Aggregate):
    item: str = ""
    ordered: int = 0
    reserved: int = 0

    def apply(self, event: Event) -> Self:
        return self.model_copy(update=event.payload)


class PlaceOrder(BaseModel):
    item: str
    ordered: PositiveInt


class ConfirmReservation(BaseModel):
    reserved: PositiveInt


orders = Domain("Shop.Order", aggregate=Order, aggregate_type="ORDER")
CREATED, RESERVED = orders.event("Created"), orders.event("ReservationConfirmed")
NOT_RESERVED = orders.event("ReservationFailed")  # the warehouse reserved more than was ordered


@orders.command(creates=True)
def place(_: Order, command: PlaceOrder) -> Events:
    return [CREATED(command.model_dump())]


@orders.command(internal=True)
def confirm(order: Order, command: ConfirmReservation) -> Events:
    return [RESERVED(command.model_dump()) if command.reserved <= order.ordered else NOT_RESERVED({})]


backbone = Backbone.from_environment([orders], service="orders")
checks = {"postgres": check_postgres(backbone.database, BACKBONE)}
app = create_app(
    title="Orders", version="1", lifespan=backbone.lifespan, registry=backbone.registry, checks=checks
)
app.include_router(aggregate_router(backbone, orders), prefix="/orders")


@subscribe(CREATED.name, group="warehouse")
async def reserve(event: EventEnvelope, unit: EventTransaction) -> None:
    order_id, payload = UUID(event.aggregate_id), {"reserved": event.payload["ordered"]}
    caller = Caller.following(event, service="warehouse")
    await backbone.commands.process_command(order_id, "ConfirmReservation", payload, unit.db, caller=caller)
