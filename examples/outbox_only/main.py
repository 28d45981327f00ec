"""Example: an application with FastAPI, SQLAlchemy and Alembic that publishes events by the outbox."""

import os
from collections.abc import AsyncIterator
from typing import Annotated
from uuid import UUID, uuid4

from fastapi import Depends, FastAPI, HTTPException
from models import Invoice
from pydantic import BaseModel, PositiveInt
from relaybox.outbox import save_to_outbox
from relaybox_types.envelope import build_event_envelope
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

app = FastAPI(title="Invoices")
sessions = async_sessionmaker(create_async_engine(os.environ["DATABASE_URL"]), expire_on_commit=False)


async def session() -> AsyncIterator[AsyncSession]:
    async with sessions() as db:
        yield db


class NewInvoice(BaseModel):
    number: str
    cents: PositiveInt


@app.post("/invoices", status_code=201)
async def create(new: NewInvoice, db: Annotated[AsyncSession, Depends(session)]) -> dict[str, UUID]:
    invoice = Invoice(id=uuid4(), **new.model_dump())
    db.add(invoice)
    event = build_event_envelope(
        event_type="Billing.Invoice.Created",
        aggregate_type="INVOICE",
        aggregate_id=str(invoice.id),
        version=1,
        correlation_id=uuid4(),
        payload=new.model_dump(),
    )
    await save_to_outbox("domain-events", str(invoice.id), event.model_dump(), db)
    try:
        await db.commit()
    except IntegrityError:
        raise HTTPException(409, f"invoice {new.number} exists already; choose another number") from None
    return {"id": invoice.id}
