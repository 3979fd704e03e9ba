"""A table of users with encrypted columns, by the integration or by the naive implementation, and its traps."""

from __future__ import annotations

import functools
import json
from typing import Any, NamedTuple
from uuid import uuid4

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker
from sqlalchemy.pool import StaticPool

from kmsbridge import AuthenticationError, MessageError
from kmsbridge.integrations import sqlalchemy as ours

CAUGHT = (AssertionError, pytest.fail.Exception, AuthenticationError, MessageError)
"""How the naive implementation may fail a test: by what the test looks at, and by nothing else."""


class Database(NamedTuple):
    """How to reach a database."""

    url: Any
    async_url: Any
    options: Any
    async_options: Any


SQLITE = Database(
    "sqlite://",
    "sqlite+aiosqlite://",
    {"poolclass": StaticPool, "connect_args": {"check_same_thread": False}},
    {"poolclass": StaticPool},
)


def own_insert(session):
    """The `insert` of a session's database, which has upserts."""
    return {"sqlite": sqlite, "postgresql": postgresql}[session.get_bind().dialect.name].insert


class Counted:
    """A cipher whose calls are counted."""

    def __init__(self, cipher):
        self.cipher, self.calls, self.values = cipher, [], []

    def encrypt_many(self, plaintexts, **how):
        self.calls.append("encrypt")
        self.values += plaintexts
        return self.cipher.encrypt_many(plaintexts, **how)

    def decrypt_many(self, messages, **how):
        self.calls.append("decrypt")
        return self.cipher.decrypt_many(messages, **how)

    def decrypt(self, message, **how):
        self.calls.append("decrypt")
        return self.cipher.decrypt(message, **how)


def models(kit):
    """A base class and a mapped class, anew for each test."""

    class Base(DeclarativeBase):
        pass

    class User(Base):
        __tablename__ = "users"
        id: Mapped[str] = mapped_column(primary_key=True, default=lambda: str(uuid4()))
        tenant: Mapped[str]
        name: Mapped[str | None]
        phone = kit.encrypted_text("users.phone", context=("tenant",))
        prefs = kit.encrypted_json("users.prefs", context=("tenant",))

    return Base, User


class World:
    """An implementation, its models, and a database in memory."""

    def __init__(self, kit, cipher, database=SQLITE):
        self.kit, self.cipher, self.database = kit, Counted(cipher), database
        self.plain_cipher = cipher
        self.Base, self.User = models(kit)
        self.engine = create_engine(database.url, **database.options)
        self.Base.metadata.create_all(self.engine)
        self.Session = self.sessions(write=self.cipher, read=self.cipher)

    def sessions(self, **ciphers):
        made = sessionmaker(self.engine)
        self.kit.bind(made, **ciphers)
        return made

    def add(self, **values):
        """The id of a new row, which a session of its own commits."""
        with self.Session() as session:
            user = self.User(**{"tenant": "acme", "phone": "+1 555 0100"} | values)
            session.add(user)
            session.commit()
            return user.id

    def column(self, row_id, name="phone"):
        """What the database has."""
        with self.engine.connect() as connection:
            found = connection.execute(text(f"SELECT {name} FROM users WHERE id = :id"), {"id": row_id})
            return found.scalar_one()

    def stored(self, row_id, name="phone"):
        """What its message says to who knows the row, by the cipher alone."""
        message = self.column(row_id, name)
        if message is None:
            return None
        context = {"tenant": self.column(row_id, "tenant")}
        payload = self.plain_cipher.decrypt(message, context=context, aad=(f"users.{name}", row_id))
        return json.loads(payload) if name == "prefs" else payload.decode()

    def ids(self):
        with self.engine.connect() as connection:
            return sorted(connection.execute(text("SELECT id FROM users")).scalars())

    def asynchronous(self, **ciphers):
        """An engine, with the table, and a maker of asyncio sessions; the engine is for the caller to dispose of."""
        engine = create_async_engine(self.database.async_url, **self.database.async_options)
        sessions = async_sessionmaker(engine, expire_on_commit=False)
        self.kit.bind(sessions, **{"write": self.cipher, "read": self.cipher} | ciphers)
        return engine, sessions


def trap(test):
    """A test that passes with the integration, and must fail with the naive implementation."""

    @functools.wraps(test)
    def run(world, **others):
        if world.kit is ours:
            test(world=world, **others)
        else:
            with pytest.raises(CAUGHT):
                test(world=world, **others)

    return run
