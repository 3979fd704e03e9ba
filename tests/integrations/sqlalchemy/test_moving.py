"""Moving a column from plaintext: both are read side by side until nothing is in the clear."""

import asyncio

import pytest
from sqlalchemy import create_engine, insert, literal, select, text, update
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, class_mapper, column_property, mapped_column, sessionmaker
from sqlalchemy.pool import StaticPool

from kmsbridge import ConfigError
from kmsbridge.integrations.sqlalchemy import (
    Ciphertext,
    EncryptedColumnError,
    bind,
    encrypt_rows,
    encrypted_text,
    progress,
    rebind,
)


class Base(DeclarativeBase):
    pass


class Guest(Base):
    __tablename__ = "guests"
    id: Mapped[str] = mapped_column(primary_key=True)
    tenant: Mapped[str]
    phone_plain: Mapped[str | None] = mapped_column("phone_old")
    phone: Mapped[str | None] = encrypted_text("guests.phone", context=("tenant",), replaces="phone_plain")


@pytest.fixture
def engine():
    """Three rows as an older version of the application made them; the last one has no phone."""
    engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        for row in ("('a', 't', '+1')", "('b', 't', '+2')", "('c', 't', NULL)"):
            connection.execute(text(f"INSERT INTO guests (id, tenant, phone_old) VALUES {row}"))
    yield engine
    engine.dispose()


@pytest.fixture
def session(engine, cipher):
    made = sessionmaker(engine)
    bind(made, write=cipher, read=cipher)
    with made() as session:
        yield session


def stored(engine):
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT id, phone_old, phone IS NOT NULL FROM guests ORDER BY id"))
        return [tuple(row) for row in rows]


def test_a_row_that_is_not_moved_gives_its_plaintext(session):
    assert [guest.phone for guest in session.scalars(select(Guest).order_by(Guest.id))] == ["+1", "+2", None]
    assert not session.dirty


def test_an_assigned_value_moves_its_row_and_no_other(session, engine):
    """Also the value that it has already."""
    guest = session.get(Guest, "a")
    guest.phone = guest.phone
    session.commit()
    assert stored(engine) == [("a", None, 1), ("b", "+2", 0), ("c", None, 0)]
    session.expire_all()
    assert session.get(Guest, "a").phone == "+1"
    assert progress(session, Guest, "phone") == (1, 1)


def test_a_value_set_to_none_is_none_in_both(session, engine):
    session.get(Guest, "a").phone = None
    session.commit()
    assert stored(engine)[0] == ("a", None, 0)
    assert session.get(Guest, "a").phone is None


def test_a_deleted_attribute_is_none_in_both(session, engine):
    guest = session.get(Guest, "a")
    assert guest.phone == "+1"
    del guest.phone
    session.commit()
    assert stored(engine)[0] == ("a", None, 0)


def test_a_message_that_is_assigned_moves_its_row(session, engine):
    """And can be assigned again once the attribute that is replaced was loaded."""
    guest = session.get(Guest, "a")
    for phone in ("+8", "+9"):
        (row,) = encrypt_rows(session, Guest, [{"id": "a", "tenant": "t", "phone": phone}])
        guest.phone = row["phone"]
        session.commit()
        assert (guest.phone, guest.phone_plain) == (phone, None)
    assert stored(engine)[0] == ("a", None, 1)


def test_what_an_older_host_wrote_after_the_move_counts(session, engine):
    """It is newer than the message beside it, and in the clear."""
    session.get(Guest, "a").phone = "+9"
    session.commit()
    with engine.begin() as connection:
        connection.execute(text("UPDATE guests SET phone_old = '+10' WHERE id = 'a'"))
    session.expire_all()
    assert session.get(Guest, "a").phone == "+10"
    assert progress(session, Guest, "phone") == (0, 2)


def test_a_changed_context_loses_no_plaintext(session, engine):
    session.get(Guest, "b").tenant = "other"
    session.commit()
    assert stored(engine)[1] == ("b", "+2", 0)


def test_a_value_that_is_refused_loses_no_plaintext(session, engine):
    guest = session.get(Guest, "a")
    with pytest.raises(TypeError, match="must be str"):
        guest.phone = 1
    session.commit()
    assert guest.phone == "+1"
    assert stored(engine)[0] == ("a", "+1", 0)


def test_a_merged_object_keeps_what_it_has_in_the_clear(session, engine):
    guest = session.get(Guest, "a")
    session.expunge(guest)
    session.merge(guest)
    session.merge(Guest(id="d", tenant="t", phone_plain="+4"))
    session.commit()
    assert [stored(engine)[at] for at in (0, 3)] == [("a", "+1", 0), ("d", "+4", 0)]
    session.expunge_all()
    guest.phone = "+9"
    session.merge(guest)
    session.commit()
    assert stored(engine)[0] == ("a", None, 1)
    assert session.get(Guest, "a").phone == "+9"


@pytest.mark.parametrize("attribute", ("phone", "tenant"))
def test_a_row_that_is_moved_can_be_changed(session, engine, attribute):
    """Also once the attribute that is replaced was loaded, and is None as before."""
    guest = session.get(Guest, "a")
    guest.phone = guest.phone
    session.commit()
    assert guest.phone_plain is None
    setattr(guest, attribute, "+9")
    session.commit()
    session.expire_all()
    assert guest.phone == ("+9" if attribute == "phone" else "+1")
    assert stored(engine)[0] == ("a", None, 1)


def test_what_an_older_host_wrote_stays_when_the_context_changes(session, engine):
    guest = session.get(Guest, "a")
    guest.phone = guest.phone
    session.commit()
    guest.phone_plain = "+10"
    session.commit()
    guest.tenant = "other"
    session.commit()
    assert guest.phone == "+10"
    assert stored(engine)[0] == ("a", "+10", 1)


def test_what_an_older_host_wrote_is_not_rebound(session, engine):
    """The message beside it is older."""
    guest = session.get(Guest, "a")
    guest.phone = guest.phone
    session.commit()
    guest.phone_plain = "+10"
    session.commit()
    rebind(session, [guest])
    session.commit()
    assert guest.phone == "+10"
    assert stored(engine)[0] == ("a", "+10", 1)


def test_rows_for_statements_keep_what_is_in_the_clear_alone(session):
    """As a row that is not moved is loaded; beside a value that is given it goes."""
    rows = encrypt_rows(
        session,
        Guest,
        [
            {"id": "d", "tenant": "t", "phone": None, "phone_plain": "+4"},
            {"id": "e", "tenant": "t", "phone": "+5", "phone_plain": "+4"},
            {"id": "f", "tenant": "t", "phone": None},
        ],
    )
    assert [row["phone_plain"] for row in rows] == ["+4", None, None]


def test_a_default_is_refused_while_values_are_moved():
    """It would be stored, and win over what is in the clear."""

    class Other(DeclarativeBase):
        pass

    class Row(Other):
        __tablename__ = "t"
        id: Mapped[str] = mapped_column(primary_key=True)
        old: Mapped[str | None]
        new: Mapped[str | None] = encrypted_text("t.new", replaces="old", default="none")

    with pytest.raises(ConfigError, match="a default of one would win"):
        class_mapper(Row)


def test_rows_for_statements_have_no_plaintext(session, engine):
    rows = encrypt_rows(session, Guest, [{"id": "d", "tenant": "t", "phone": "+4"}])
    assert rows[0]["phone_plain"] is None
    session.execute(insert(Guest), rows)
    session.commit()
    assert stored(engine)[3] == ("d", None, 1)
    assert session.get(Guest, "d").phone == "+4"


def test_an_update_that_leaves_the_plaintext_is_refused(session):
    """It would win over the new message."""
    (row,) = encrypt_rows(session, Guest, [{"id": "a", "tenant": "t", "phone": "+5"}])
    assert isinstance(row["phone"], Ciphertext)
    with pytest.raises(EncryptedColumnError, match="phone_old"):
        session.execute(update(Guest).where(Guest.id == "a").values(phone=row["phone"]))
    session.execute(update(Guest).where(Guest.id == "a").values(phone=row["phone"], phone_plain=None))
    session.commit()
    assert session.get(Guest, "a").phone == "+5"


def test_progress_is_awaited_with_an_asyncio_session(tmp_path, cipher):
    async def work():
        engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/guests.db")
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        made = async_sessionmaker(engine)
        bind(made, write=cipher, read=cipher)
        async with made() as session:
            session.add(Guest(id="a", tenant="t", phone="+1"))
            session.add(Guest(id="b", tenant="t", phone_plain="+2"))
            await session.commit()
            found = await progress(session, Guest, "phone")
        await engine.dispose()
        return found

    assert asyncio.run(work()) == (1, 1)


@pytest.mark.parametrize(
    "old",
    (
        None,
        mapped_column(nullable=False),
        encrypted_text("other"),
        column_property(literal("x")),
        mapped_column(server_default=""),
        mapped_column(default="x"),
        mapped_column(onupdate="x"),
    ),
    ids=("none", "not null", "encrypted", "expression", "server default", "default", "onupdate"),
)
def test_what_cannot_be_replaced_is_refused(old):
    class Other(DeclarativeBase):
        pass

    columns = {} if old is None else {"old": old}
    namespace = {
        "__tablename__": "t",
        "__annotations__": {"id": Mapped[str], **dict.fromkeys(columns, Mapped[str | None])},
        "id": mapped_column(primary_key=True),
        "new": encrypted_text("t.new", replaces="old", nullable=True),
        **columns,
    }
    with pytest.raises(ConfigError, match="replaces 'old'"):
        class_mapper(type("T", (Other,), namespace))


def test_two_columns_do_not_replace_one():
    """Assigning to one would lose the value of the other."""

    class Other(DeclarativeBase):
        pass

    class Row(Other):
        __tablename__ = "t"
        id: Mapped[str] = mapped_column(primary_key=True)
        old: Mapped[str | None]
        one: Mapped[str | None] = encrypted_text("t.one", replaces="old")
        two: Mapped[str | None] = encrypted_text("t.two", replaces="old")

    with pytest.raises(ConfigError, match="replace one attribute"):
        class_mapper(Row)


def test_progress_of_a_column_that_replaces_none(session):
    class Plain(Base):
        __tablename__ = "plain"
        id: Mapped[str] = mapped_column(primary_key=True)
        phone: Mapped[str | None] = encrypted_text("plain.phone")

    with pytest.raises(ConfigError, match="replaces no attribute"):
        progress(session, Plain, "phone")
