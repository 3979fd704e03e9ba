"""Rewrapping the messages of a table while it is in use."""

import asyncio
from uuid import UUID, uuid4

import pytest
from sqlalchemy import ForeignKey, String, TypeDecorator, Uuid, create_engine, event, select, text
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker
from sqlalchemy.pool import StaticPool

from kmsbridge import EnvelopeCipher, inspect
from kmsbridge.drivers.local.keyfile import KeyFile
from kmsbridge.integrations.sqlalchemy import (
    bind,
    encrypted_bytes,
    encrypted_text,
    partial_column,
    rewrap_rows,
)
from kmsbridge.partial import LAST4

CONFIG = {
    "keys": {"old": {"uri": "local:old.json#old"}, "new": {"uri": "local:new.json#new"}},
    "profiles": {
        "before": {"encrypt_to": ["old"], "decrypt_with": ["old"]},
        "after": {"encrypt_to": ["new"], "decrypt_with": ["new", "old"]},
        "new": {"encrypt_to": ["new"], "decrypt_with": ["new"]},
    },
}


class Base(DeclarativeBase):
    pass


class Person(Base):
    """Has a key of two columns, a context, and a part of a value."""

    __tablename__ = "persons"
    country: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    tenant: Mapped[str]
    phone: Mapped[str | None] = encrypted_text("persons.phone", context=("tenant",))
    photo: Mapped[bytes | None] = encrypted_bytes("persons.photo")
    phone_last4: Mapped[str | None] = partial_column("phone", LAST4)


PLACES = [(country, number) for country in ("at", "de") for number in range(1, 8)]


@pytest.fixture
def ciphers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tmp_path.chmod(0o700)
    for name in ("old", "new"):
        KeyFile.create(f"{name}.json", name).close()
    opened = {name: EnvelopeCipher.from_mapping(CONFIG, profile=name) for name in CONFIG["profiles"]}
    yield opened
    for cipher in opened.values():
        cipher.close()


@pytest.fixture
def engine():
    engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    Base.metadata.create_all(engine)
    yield engine
    engine.dispose()


def sessions(engine, cipher):
    made = sessionmaker(engine)
    bind(made, write=cipher, read=cipher, partial=cipher)
    return made


def fill(engine, cipher):
    with sessions(engine, cipher)() as session:
        for country, number in PLACES:
            session.add(
                Person(
                    country=country,
                    number=number,
                    tenant=f"t{number % 3}",
                    phone=None if number == 3 else f"+43 555 {number:04}",
                    photo=b"photo %d" % number,
                )
            )
        session.commit()


def columns(engine, name):
    with engine.connect() as connection:
        return list(
            connection.execute(text(f"SELECT {name} FROM persons ORDER BY country, number")).scalars()
        )


def keys_of(messages):
    return {each.key_id.partition("@")[0] for m in messages if m for each in inspect(m).recipients}


def rewrap_all(opened, cipher, *attributes, model=Person, limit=4):
    places, after = [], None
    while True:
        with opened() as session:
            after = rewrap_rows(session, cipher, model, *attributes, after=after, limit=limit)
            session.commit()
        if after is None:
            return places
        places.append(after)


def test_a_table_is_rewrapped_batch_by_batch_and_every_value_stays(engine, ciphers):
    fill(engine, ciphers["before"])
    opened = sessions(engine, ciphers["after"])
    assert rewrap_all(opened, ciphers["after"]) == [PLACES[3], PLACES[7], PLACES[11], PLACES[13]]
    assert keys_of(columns(engine, "phone") + columns(engine, "photo")) == {"local:new"}
    assert keys_of(columns(engine, "phone_last4")) == {"local:old"}
    rewrap_all(opened, ciphers["after"], "phone_last4")
    assert keys_of(columns(engine, "phone_last4")) == {"local:new"}
    with sessions(engine, ciphers["new"])() as session:
        for person in session.scalars(select(Person)):
            wanted = None if person.number == 3 else f"+43 555 {person.number:04}"
            assert (person.phone, person.photo) == (wanted, b"photo %d" % person.number)
            assert person.phone_last4 == (wanted and wanted[-4:])


def test_what_is_current_is_not_written(engine, ciphers):
    fill(engine, ciphers["new"])
    updates = []
    event.listen(
        engine,
        "before_cursor_execute",
        lambda *each: updates.append(each[2]) if "UPDATE" in each[2] else None,
    )
    rewrap_all(sessions(engine, ciphers["after"]), ciphers["after"])
    assert not updates


def test_a_value_that_changes_meanwhile_is_left_as_it_is(engine, ciphers):
    """Rewrapping never puts an old value back."""
    fill(engine, ciphers["before"])
    opened = sessions(engine, ciphers["after"])

    class Meanwhile:
        """A cipher during whose call somebody else changes a row."""

        needs_rewrap = staticmethod(ciphers["after"].needs_rewrap)

        @staticmethod
        def rewrap_many(messages, **how):
            new = ciphers["after"].rewrap_many(messages, **how)
            with engine.begin() as connection:
                connection.execute(text("UPDATE persons SET phone = x'00' WHERE number = 1"))
            return new

    with opened() as session:
        rewrap_rows(session, Meanwhile(), Person, "phone")
        session.commit()
    phones = columns(engine, "phone")
    assert [at for at, phone in enumerate(phones) if phone == b"\0"] == [0, 7]
    assert keys_of(phones[1:7]) == {"local:new"}


class Hexadecimal(TypeDecorator):
    """Numbers whose order in the database is not that of their Python values' texts."""

    impl = String(8)
    cache_ok = True

    def process_bind_param(self, value, dialect):
        return None if value is None else f"{value:08x}"

    def process_result_value(self, value, dialect):
        return None if value is None else int(value, 16)


def test_no_row_is_left_out_whatever_types_a_key_has(engine, ciphers):
    class Others(DeclarativeBase):
        pass

    class Other(Others):
        __tablename__ = "others"
        number: Mapped[int] = mapped_column(Hexadecimal, primary_key=True)
        uuid: Mapped[UUID] = mapped_column(Uuid(native_uuid=False), primary_key=True)
        phone: Mapped[str] = encrypted_text("others.phone")

    Others.metadata.create_all(engine)
    with sessions(engine, ciphers["before"])() as session:
        session.add_all(Other(number=number, uuid=uuid4(), phone=f"+{number}") for number in range(20))
        session.commit()
    assert len(rewrap_all(sessions(engine, ciphers["after"]), ciphers["after"], model=Other)) == 5
    with sessions(engine, ciphers["new"])() as session:
        others = session.scalars(select(Other).order_by(Other.number))
        assert [other.phone for other in others] == [f"+{number}" for number in range(20)]


def test_rows_of_a_class_that_inherits_are_rewrapped_in_each_of_its_tables(engine, ciphers):
    class Inherited(DeclarativeBase):
        pass

    class Parent(Inherited):
        __tablename__ = "parents"
        id: Mapped[str] = mapped_column(primary_key=True)
        kind: Mapped[str]
        phone: Mapped[str] = encrypted_text("parents.phone")
        __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "parent"}

    class Joined(Parent):
        __tablename__ = "joined"
        id: Mapped[str] = mapped_column(ForeignKey("parents.id"), primary_key=True)
        note: Mapped[str] = encrypted_text("joined.note")
        __mapper_args__ = {"polymorphic_identity": "joined"}

    class Single(Parent):
        extra: Mapped[str | None] = encrypted_text("parents.extra")
        __mapper_args__ = {"polymorphic_identity": "single"}

    Inherited.metadata.create_all(engine)
    with sessions(engine, ciphers["before"])() as session:
        session.add_all(Joined(id=f"j{number}", phone="+1", note="n") for number in range(5))
        session.add_all([Parent(id="p", phone="+2"), Single(id="s", phone="+3", extra="e")])
        session.commit()
    opened, read = sessions(engine, ciphers["after"]), sessions(engine, ciphers["new"])
    assert rewrap_all(opened, ciphers["after"], model=Joined) == [("j3",), ("j4",)]
    assert rewrap_all(opened, ciphers["after"], model=Single) == [("s",)]
    with read() as session:
        assert [(each.phone, each.note) for each in session.scalars(select(Joined))] == [("+1", "n")] * 5
        assert [(each.phone, each.extra) for each in session.scalars(select(Single))] == [("+3", "e")]
    rewrap_all(opened, ciphers["after"], model=Parent)
    with read() as session:
        assert sorted(each.phone for each in session.scalars(select(Parent))) == ["+1"] * 5 + ["+2", "+3"]


def test_an_attribute_that_is_not_encrypted_is_refused(engine, ciphers):
    with (
        sessions(engine, ciphers["after"])() as session,
        pytest.raises(TypeError, match="no encrypted column"),
    ):
        rewrap_rows(session, ciphers["after"], Person, "tenant")


def test_a_limit_of_nothing_is_refused(engine, ciphers):
    """It would read like the end of the table."""
    with sessions(engine, ciphers["after"])() as session, pytest.raises(ValueError, match="at least 1"):
        rewrap_rows(session, ciphers["after"], Person, limit=0)


def test_it_is_awaited_with_an_asyncio_session(tmp_path, ciphers):
    async def work():
        engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/persons.db")
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        opened = async_sessionmaker(engine)
        bind(opened, write=ciphers["before"], read=ciphers["after"], partial=ciphers["before"])
        async with opened() as session:
            session.add(Person(country="at", number=1, tenant="t", phone="+43 555 0001"))
            await session.commit()
            last = await rewrap_rows(session, ciphers["after"], Person)
            assert last == ("at", 1)
            assert await rewrap_rows(session, ciphers["after"], Person, after=last) is None
            await session.commit()
            message = (await session.execute(text("SELECT phone FROM persons"))).scalar_one()
        await engine.dispose()
        return message

    assert keys_of([asyncio.run(work())]) == {"local:new"}
