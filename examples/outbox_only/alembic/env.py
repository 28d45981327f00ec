"""Alembic's environment of this application, as `alembic init --template async` makes it, in short."""

import asyncio
import os

from alembic import context
from models import Base
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine


def ours(_object: object, _name: str | None, kind: str, reflected: bool, model: object) -> bool:
    """Tables that no model describes belong to Relaybox: autogenerate must not drop them."""
    return not (kind == "table" and reflected and model is None)


def migrate(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=Base.metadata, include_object=ours)
    with context.begin_transaction():
        context.run_migrations()


async def main() -> None:
    engine = create_async_engine(os.environ["DATABASE_URL"])
    async with engine.connect() as connection:
        await connection.run_sync(migrate)
        await connection.commit()
    await engine.dispose()


asyncio.run(main())
