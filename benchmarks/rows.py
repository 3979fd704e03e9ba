"""Rows with an encrypted column in a flush of SQLAlchemy, beside the same rows with bytes and the cipher alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from sqlalchemy import create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from benchmarks import bare, keys
from benchmarks.report import Line
from benchmarks.sizes import Sizes
from benchmarks.workers import Values, interleave, middle, ratio
from kmsbridge import EnvelopeCipher
from kmsbridge.integrations.sqlalchemy import bind, decrypt_all, encrypted_text

TENANTS = 50
PART = f"SQLAlchemy, rows of {TENANTS} tenants in SQLite, data keys at hand, CPU time"
LIMIT = 1.5


class Base(DeclarativeBase):
    """The base class of both tables."""


class Plain(Base):
    """A table that has a message's bytes as any others."""

    __tablename__ = "plain"
    id: Mapped[str] = mapped_column(primary_key=True)
    tenant: Mapped[str]
    phone: Mapped[bytes]


class User(Base):
    """A table with an encrypted column."""

    __tablename__ = "users"
    id: Mapped[str] = mapped_column(primary_key=True)
    tenant: Mapped[str]
    phone: Mapped[str] = encrypted_text("users.phone", context=("tenant",))


def worker(sizes: Sizes, folder: str) -> Values:
    """CPU seconds for all rows."""
    count = range(sizes.rows)
    phones = [f"+1 555 {number:06}" for number in count]
    with EnvelopeCipher.from_uri(keys.uri(folder)) as cipher:
        message = cipher.encrypt(phones[0].encode(), context={"tenant": "0"})

        def users() -> Iterable[User]:
            return (User(id=f"{n}", tenant=f"{n % TENANTS}", phone=phones[n]) for n in count)

        def plain() -> Iterable[Plain]:
            return (Plain(id=f"{n}", tenant=f"{n % TENANTS}", phone=message) for n in count)

        stored = _session(cipher)
        stored.add_all(users())
        stored.add_all(plain())
        stored.commit()

        def opened() -> list[str]:
            stored.expunge_all()
            found = stored.scalars(select(User)).all()
            decrypt_all(stored, found)
            return [user.phone for user in found]

        def loaded() -> list[bytes]:
            stored.expunge_all()
            return [each.phone for each in stored.scalars(select(Plain)).all()]

        calls: dict[str, Callable[[], object]] = {
            "the cipher alone": lambda: [bare.seal(phone.encode()) for phone in phones],
            "flush of rows of bytes": partial(_flush, cipher, plain),
            "flush of encrypted rows": partial(_flush, cipher, users),
            "loading rows of bytes": loaded,
            "loading encrypted rows and decrypt_all": opened,
        }
        try:
            return interleave(calls, max(1, sizes.peer_message_rounds // 4), 0.0)
        finally:
            _end(stored)


def _session(cipher: EnvelopeCipher) -> Session:
    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine)
    session = Session(engine)
    bind(session, write=cipher, read=cipher)
    return session


def _end(session: Session) -> None:
    engine = session.get_bind()
    session.close()
    engine.dispose()  # type: ignore[union-attr]


def _flush(cipher: EnvelopeCipher, objects: Callable[[], Iterable[object]]) -> None:
    session = _session(cipher)
    session.add_all(objects())
    session.commit()
    _end(session)


def lines(runs: list[Values], sizes: Sizes) -> list[Line]:
    """The table's lines. A flush is held against the same rows as bytes and the cipher, together."""
    for values in runs:
        pairs = zip(values["flush of rows of bytes"], values["the cipher alone"], strict=True)
        values["rows of bytes and the cipher"] = [sum(pair) for pair in pairs]
    bases = {
        "flush of encrypted rows": "rows of bytes and the cipher",
        "loading encrypted rows and decrypt_all": "loading rows of bytes",
    }
    return [
        Line(
            PART,
            name,
            middle(runs, name) / sizes.rows * 1e6,
            "us/row",
            ratio=ratio(runs, name, bases[name]) if name in bases else None,
            limit=LIMIT if name == "flush of encrypted rows" else None,
        )
        for name in runs[0]
        if name != "rows of bytes and the cipher"
    ]
