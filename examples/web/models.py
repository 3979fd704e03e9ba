"""The customers, as the web server and the worker map them."""

from __future__ import annotations

from uuid import UUID, uuid4

from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from kmsbridge.blindindex import BlindIndex, e164
from kmsbridge.integrations.sqlalchemy import EncryptedMapped, encrypted_text, index_column, partial_column
from kmsbridge.partial import LAST4

PHONES = BlindIndex("customers.phone", keys="phone", normalize=e164("GB"))


class Base(DeclarativeBase):
    """The base of all mapped classes."""


class Customer(Base):
    """A customer of a tenant. The phone number is encrypted, can be looked up, and shows its last four digits."""

    __tablename__ = "customers"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    tenant: Mapped[str] = mapped_column(index=True)
    name: Mapped[str]
    phone: EncryptedMapped[str] = encrypted_text("customers.phone", context=("tenant",))
    phone_index: Mapped[bytes | None] = index_column("phone", PHONES, index=True)
    phone_last4: Mapped[str | None] = partial_column("phone", LAST4)
