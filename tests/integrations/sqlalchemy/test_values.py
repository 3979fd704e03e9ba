"""Text, bytes, JSON and any type by a codec; what the objects that hold them show, copy and pickle."""

import copy
import json
import pickle
from datetime import date
from decimal import Decimal

import pytest
from sqlalchemy import JSON, Column, Integer, MetaData, Table, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, scoped_session

from kmsbridge import AuthenticationError, RoleError
from kmsbridge.integrations import sqlalchemy as ours
from kmsbridge.integrations.sqlalchemy import Ciphertext, EncryptedColumnError
from kmsbridge.integrations.sqlalchemy.frozen import frozen
from tests.secrets.canaries import PLAINTEXT, assert_clean, assert_discreet, failure_of


class Plain:
    """To be mapped without an encrypted column."""


def plain_table():
    return Table("plain", MetaData(), Column("id", Integer, primary_key=True))


class DateCodec:
    """A date as ISO 8601 has it."""

    def encode(self, value, /):
        return value.isoformat().encode()

    def decode(self, payload, /):
        return date.fromisoformat(payload.decode())


@pytest.fixture
def thing(ours_alone):
    """A class with a column of each type."""

    class Base(DeclarativeBase):
        pass

    class Thing(Base):
        __tablename__ = "things"
        id: Mapped[str] = mapped_column(primary_key=True)
        text: Mapped[str | None] = ours.encrypted_text("things.text")
        data: Mapped[bytes | None] = ours.encrypted_bytes("things.data")
        born: Mapped[date | None] = ours.encrypted("things.born", DateCodec())
        json: Mapped[object] = ours.encrypted_json("things.json", nullable=True, default=dict)

    Base.metadata.create_all(ours_alone.engine)
    return Thing


VALUES = {
    "text": ("", "a", "grüß Gott 🎉", "x" * 100_000),
    "data": (b"", b"\x00\xff" * 10),
    "born": (date(1970, 1, 31),),
    "json": ({}, [], {"a": [1, {"b": None}]}, "text", 0, 1.5, True, False, [None], ""),
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in VALUES.items() for value in values]
)
def test_a_value_is_read_as_it_was_assigned(ours_alone, thing, name, value):
    """Before the flush, after it, and loaded."""
    with ours_alone.Session() as session:
        made = thing(id="1", **{name: value})
        assert getattr(made, name) == value
        session.add(made)
        session.flush()
        assert getattr(made, name) == value
        session.expire_all()
        assert getattr(made, name) == value
        assert type(getattr(made, name)) in (type(value), type(frozen(value)))


def test_null_and_json_s_null_are_two_things(ours_alone, thing):
    """None is SQL's."""
    with ours_alone.Session() as session:
        session.add_all([thing(id="json", json=JSON.NULL), thing(id="sql", text="x"), thing(id="default")])
        session.flush()
        session.execute(update(thing).where(thing.id == "sql").values(json=None))
        session.expire_all()
        assert session.get(thing, "json").json is JSON.NULL
        assert session.get(thing, "sql").json is None
        assert session.get(thing, "default").json == {}
        assert session.scalars(select(thing.id).where(thing.json.is_(None))).all() == ["sql"]


WRONG = {
    "text": (b"x", 5),
    "data": ("x", 5),
    "json": ({1, 2}, float("nan"), date(2000, 1, 1), Decimal("1.5")),
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in WRONG.items() for value in values]
)
def test_a_value_of_another_type_is_refused_where_it_is_assigned(thing, name, value):
    """By an error that names the attribute, and not by the flush."""
    with pytest.raises(TypeError, match=rf"Thing\.{name}"):
        thing(id="1", **{name: value})


def test_text_that_cannot_be_written_is_refused_and_not_shown(thing):
    error = failure_of(lambda: thing(id="1", text=PLAINTEXT.text() + "\ud800"))
    assert isinstance(error, ValueError)
    assert_clean(str(error), "the error")


def test_json_is_taken_as_it_is_when_it_is_assigned(ours_alone, thing):
    """A later change of the application's object is no change of the row's; what is read is ordinary JSON else."""
    value = {"tags": ["a"], "deep": {"x": 1}}
    made = thing(id="1", json=value)
    value["tags"].append("b")
    assert made.json == {"tags": ["a"], "deep": {"x": 1}}
    assert json.dumps(made.json) == '{"tags": ["a"], "deep": {"x": 1}}'
    changed = copy.deepcopy(made.json)
    changed["tags"].append("c")
    made.json = changed
    assert made.json["tags"] == ["a", "c"]
    assert type(pickle.loads(pickle.dumps(made.json))) is type(made.json)
    assert copy.copy(made.json) == made.json
    assert type(copy.copy(made.json["tags"])) is list


@pytest.mark.parametrize(
    "change", ("append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort")
)
def test_a_list_cannot_be_changed(change):
    with pytest.raises(TypeError, match="assign"):
        getattr(frozen([1]), change)(1)


@pytest.mark.parametrize(
    "change",
    (
        lambda value: value.__setitem__(0, 2),
        lambda value: value.__delitem__(0),
        lambda value: value.__iadd__([1]),
        lambda value: value.__imul__(2),
        lambda value: frozen({0: 1}).__setitem__(0, 2),
        lambda value: frozen({0: 1}).__delitem__(0),
        lambda value: frozen({0: 1}).__ior__({1: 1}),
        lambda value: frozen({0: 1}).clear(),
        lambda value: frozen({0: 1}).pop(0),
        lambda value: frozen({0: 1}).popitem(),
        lambda value: frozen({0: 1}).setdefault(1, 2),
        lambda value: frozen({0: 1}).update({1: 2}),
    ),
)
def test_nothing_changes_a_frozen_value(change):
    with pytest.raises(TypeError, match="assign"):
        change(frozen([1, 2]))


def test_what_stands_in_an_object_shows_nothing_and_copies_as_it_is(ours_alone):
    """A value that is not encrypted yet, and a message that was decrypted."""
    user = ours_alone.User(tenant="acme", phone=PLAINTEXT.text())
    pending = vars(user)["phone"]
    with ours_alone.Session() as session:
        session.add(user)
        session.flush()
        message = vars(user)["phone"]
        for each in (pending, message):
            assert_clean(repr(each), "its repr")
            assert copy.copy(each) is each
            assert copy.deepcopy(each) is each
        assert_clean(pickle.dumps(message), "its pickle")
        again = pickle.loads(pickle.dumps(message))
        assert again == message
        assert hash(again) == hash(message)
        assert (again.place, again.opened, bytes(again)) == (message.place, None, message.message)


def test_no_error_of_a_session_shows_a_value(ours_alone):
    """Neither of the database, which shows the parameters, nor of this library, nor of the flush that is refused."""
    ours_alone.add(id="1")
    value = PLAINTEXT.text()
    with ours_alone.Session() as session:
        session.add(ours_alone.User(id="1", tenant="acme", phone=value))
        error = failure_of(session.commit)
        assert isinstance(error, IntegrityError)
        assert_discreet(error)
    with Session(ours_alone.engine) as session:
        session.add(ours_alone.User(id="2", tenant="acme", phone=value))
        assert_discreet(failure_of(session.commit))
    with ours_alone.Session() as session:
        row = {"id": "2", "tenant": "acme", "phone": value}
        error = failure_of(lambda: session.execute(insert(ours_alone.User), [row]))
        for text in (str(error), repr(error), repr(error.args)):
            assert_clean(text, "the error of a statement")


def test_the_frames_of_an_error_of_the_key_service_show_no_value(ours_alone, service):
    """In a flush, in `encrypt_rows` and in `decrypt_all`."""
    row_id = ours_alone.add(phone=PLAINTEXT.text())

    def refuse(operation):
        raise ConnectionError("not now")

    service.before = refuse
    user = ours_alone.User(id="1", tenant="other", phone=PLAINTEXT.text())
    with ours_alone.Session() as session:
        session.add(user)
        assert_discreet(failure_of(session.flush))
        session.expunge(user)
        service.before = lambda operation: None
        broken = session.get(ours_alone.User, row_id)
        vars(broken)["phone"].message = vars(broken)["phone"].message[:-1] + b"?"
        error = failure_of(lambda: broken.phone)
        assert isinstance(error, AuthenticationError)
        assert_discreet(error)


def test_a_message_that_was_moved_is_not_opened(ours_alone):
    """Between rows, columns and tenants; the same for one attribute and for all."""
    first, second = ours_alone.add(), ours_alone.add()
    with ours_alone.engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE users SET phone = (SELECT phone FROM users WHERE id = '{first}')")
    with ours_alone.Session() as session:
        users = [session.get(ours_alone.User, row_id) for row_id in (first, second)]
        assert users[0].phone == "+1 555 0100"
        with pytest.raises(AuthenticationError):
            print(users[1].phone)
        session.expire_all()
        with pytest.raises(AuthenticationError) as caught:
            ours.decrypt_all(session, users, "phone")
        assert caught.value.index == 1


def test_a_message_without_its_row_is_refused(ours_alone):
    """It would be stored, and could not be decrypted."""
    row_id = ours_alone.add()
    with ours_alone.Session() as session:
        message = session.scalar(select(ours_alone.User.phone))
        assert isinstance(message, Ciphertext)
        session.add(ours_alone.User(id="copy", tenant="acme", phone=message))
        with pytest.raises(EncryptedColumnError, match="not known which row"):
            session.flush()
        session.rollback()
        session.get(ours_alone.User, row_id).phone = message
        session.commit()
    assert ours_alone.stored(row_id) == "+1 555 0100"


def test_columns_that_were_not_loaded_are_loaded_where_they_are_needed(ours_alone):
    """The context of a value that is read, and of one whose context changes."""
    from sqlalchemy.orm import load_only

    row_id = ours_alone.add()
    only = select(ours_alone.User).options(load_only(ours_alone.User.id, ours_alone.User.phone))
    with ours_alone.Session() as session:
        assert session.scalars(only).one().phone == "+1 555 0100"
    with ours_alone.Session() as session:
        session.scalars(only).one().tenant = "umbrella"
        session.commit()
    with ours_alone.Session() as session:
        user = session.scalars(select(ours_alone.User).options(load_only(ours_alone.User.name))).one()
        user.tenant = "acme"
        assert user.phone == "+1 555 0100"
        session.commit()
    assert ours_alone.stored(row_id) == "+1 555 0100"


def test_a_value_of_an_object_in_no_session_says_what_to_do(ours_alone):
    row_id = ours_alone.add()
    with ours_alone.Session() as session:
        user, other = session.get(ours_alone.User, row_id), session.get(ours_alone.User, ours_alone.add())
        ours.decrypt_all(session, [other])
    with pytest.raises(EncryptedColumnError, match="before the session ends"):
        print(user.phone)
    assert other.phone == "+1 555 0100"


def test_a_host_that_only_writes_cannot_read(ours_alone):
    """What it wrote itself it knows, until it is loaded."""
    with ours_alone.sessions(write=ours_alone.cipher)() as session:
        user = ours_alone.User(tenant="acme", phone="+1")
        session.add(user)
        session.flush()
        assert user.phone == "+1"
        session.commit()
        with pytest.raises(RoleError, match="read=decryptor"):
            print(user.phone)
        with pytest.raises(RoleError, match="read=decryptor"):
            ours.decrypt_all(session, [user])


def test_a_host_that_only_reads_cannot_write(ours_alone):
    row_id = ours_alone.add()
    with ours_alone.sessions(read=ours_alone.cipher)() as session:
        session.get(ours_alone.User, row_id).phone = "+2"
        with pytest.raises(RoleError, match="write=encryptor"):
            session.commit()
    assert ours_alone.stored(row_id) == "+1 555 0100"


@pytest.mark.parametrize("kind", ("class", "session", "scoped"))
def test_every_kind_of_session_can_be_bound(ours_alone, kind):
    class Own(Session):
        pass

    made = Own(ours_alone.engine)
    scoped = scoped_session(ours_alone.sessions())
    target = {"class": Own, "session": made, "scoped": scoped}[kind]
    ours.bind(target, write=ours_alone.cipher, read=ours_alone.cipher)
    session = scoped if kind == "scoped" else made
    session.add(ours_alone.User(id="1", tenant="acme", phone="+1"))
    session.commit()
    user = session.get(ours_alone.User, "1")
    ours.decrypt_all(session, [user])
    assert user.phone == "+1"
    session.close()


@pytest.mark.parametrize("wrong", ({"target": 5}, {"write": 5}, {"read": 5}))
def test_binding_what_is_none_of_these_is_refused(ours_alone, wrong):
    with pytest.raises(TypeError):
        ours.bind(**{"target": ours_alone.Session} | wrong)


def test_what_is_no_session_object_or_attribute_is_refused(ours_alone):
    with ours_alone.Session() as session:
        with pytest.raises(TypeError, match="session must be"):
            ours.decrypt_all(5, [])
        with pytest.raises(TypeError, match="no encrypted column 'name'"):
            ours.decrypt_all(session, [ours_alone.User()], "name")
        with pytest.raises(TypeError, match="no encrypted column"):
            ours.encrypt_rows(
                session, ours_alone.Base.registry.map_imperatively(Plain, plain_table()).class_, []
            )


def test_the_type_can_be_pickled_and_is_copied_with_its_table(ours_alone):
    """As metadata is, for caches and tools."""
    table = ours_alone.User.__table__
    kind = pickle.loads(pickle.dumps(table.c.phone.type))
    assert kind.settings == table.c.phone.type.settings
    copied = table.to_metadata(MetaData())
    assert copied.c.phone.type.settings == table.c.phone.type.settings
    with pytest.raises(EncryptedColumnError):
        print(copied.c.phone == "x")
