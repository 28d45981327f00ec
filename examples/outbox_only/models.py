"""The tables of this application, which do not depend on Relaybox."""

from uuid import UUID, uuid4

from sqlalchemy import BigInteger
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """The metadata that Alembic compares with the database."""


class Invoice(Base):
    """An invoice with a unique number."""

    __tablename__ = "invoices"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    number: Mapped[str] = mapped_column(unique=True)
    cents: Mapped[int] = mapped_column(BigInteger)
