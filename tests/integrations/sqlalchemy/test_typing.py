"""What type checkers see of encrypted columns: mypy checks this file with the others, and it runs."""

# mypy: disallow-untyped-defs, disallow-any-generics, disallow-untyped-calls, warn-unused-ignores

from collections.abc import Awaitable
from typing import Any, assert_type

from sqlalchemy import BinaryExpression, ColumnElement
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import (
    DeclarativeBase,
    InstrumentedAttribute,
    Mapped,
    Session,
    mapped_column,
)

from kmsbridge.blindindex import BlindIndex
from kmsbridge.integrations.sqlalchemy import (
    Codec,
    EncryptedMapped,
    decrypt_all,
    encrypt_rows,
    encrypted,
    encrypted_bytes,
    encrypted_json,
    encrypted_text,
    index_column,
    partial_column,
    rebind,
)
from kmsbridge.integrations.sqlalchemy.mapping import EncryptedAttribute
from kmsbridge.partial import LAST4


class TagsCodec:
    """Words, separated by spaces."""

    def encode(self, value: tuple[str, ...], /) -> bytes:
        return " ".join(value).encode()

    def decode(self, payload: bytes, /) -> tuple[str, ...]:
        return tuple(payload.decode().split())


codec: Codec[tuple[str, ...]] = TagsCodec()


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "users"
    id: Mapped[str] = mapped_column(primary_key=True)
    phone: EncryptedMapped[str] = encrypted_text("users.phone")
    by_phone: Mapped[bytes | None] = index_column(
        "phone", BlindIndex("users.phone", keys="phone"), index=True
    )
    last4: Mapped[str | None] = partial_column("phone", LAST4)
    other: Mapped[str] = encrypted_text("users.other", nullable=True)
    maybe: Mapped[str | None] = encrypted_text("users.maybe")
    plain = encrypted_text("users.plain")
    data = encrypted_bytes("users.data")
    prefs: Mapped[dict[str, Any]] = encrypted_json("users.prefs")
    tags = encrypted("users.tags", TagsCodec())


def test_attributes_have_the_types_of_their_values() -> None:
    Base.registry.configure()
    user = User(id="1", phone="+1", plain="+2", data=b"x", prefs={"a": 1}, tags=("a", "b"))
    assert_type(user.phone, str)
    assert_type(user.maybe, str | None)
    assert_type(user.plain, str)
    assert_type(user.data, bytes)
    assert_type(user.prefs, dict[str, Any])
    assert_type(user.tags, tuple[str, ...])
    assert_type(user.last4, str | None)
    assert_type(User.other, InstrumentedAttribute[str])
    assert_type(User.phone, EncryptedAttribute[str])
    assert_type(User.phone.is_(None), BinaryExpression[bool])
    user.phone = user.plain
    user.maybe = None
    assert (user.phone, user.tags, user.prefs["a"]) == ("+2", ("a", "b"), 1)
    assert not User.__table__.c.phone.nullable
    assert User.__table__.c.maybe.nullable


def awaited_or_not(session: Session, tasks: AsyncSession, users: list[User]) -> None:
    """Is only looked at by type checkers."""
    decrypt_all(session, users, "phone")
    assert_type(User.phone.matches("+1"), ColumnElement[bool])
    assert_type(User.plain.matches("+1", tenant="acme"), ColumnElement[bool])
    rebind(session, users, was=lambda user: {"id": user.maybe})
    assert_type(encrypt_rows(session, User, [{"phone": "+1"}]), list[dict[str, Any]])
    assert_type(encrypt_rows(tasks, User, [{"phone": "+1"}]), Awaitable[list[dict[str, Any]]])
    assert_type(decrypt_all(tasks, users), Awaitable[None])
