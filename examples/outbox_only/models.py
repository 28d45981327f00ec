"""The tables of this application; they know nothing of Relaybox."""

from uuid import UUID, uuid4

from sqlalchemy import BigInteger
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """What Alembic compares the database with."""


class Invoice(Base):
    """An invoice; no two have the same number."""

    __tablename__ = "invoices"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    number: Mapped[str] = mapped_column(unique=True)
    cents: Mapped[int] = mapped_column(BigInteger)
