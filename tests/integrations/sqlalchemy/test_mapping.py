"""Mapped classes: which keys and contexts there may be, and what is refused before anything is stored."""

from uuid import UUID, uuid4

# mypy: disable-error-code="valid-type"
import pytest
from sqlalchemy import (
    Boolean,
    Computed,
    Float,
    ForeignKey,
    Identity,
    Index,
    Sequence,
    String,
    UniqueConstraint,
    func,
    select,
    text,
)
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    MappedAsDataclass,
    aliased,
    mapped_column,
    relationship,
    validates,
)

from kmsbridge import ConfigError
from kmsbridge.integrations import sqlalchemy as ours
from kmsbridge.integrations.sqlalchemy import EncryptedColumnError
from tests.integrations.sqlalchemy.world import trap


def key_of(world, column, *, kind=str, context=()):
    """A class whose key is this column, mapped."""

    class Base(DeclarativeBase):
        pass

    class Thing(Base):
        __tablename__ = "things"
        id: Mapped[kind] = column
        phone = world.kit.encrypted_text("things.phone", context=context)

    Base.registry.configure()
    Base.metadata.create_all(world.engine)
    return Thing


KEYS = {
    "autoincrement": lambda: mapped_column(primary_key=True),
    "identity": lambda: mapped_column(Identity(), primary_key=True),
    "sequence": lambda: mapped_column(Sequence("things_id"), primary_key=True),
    "server default": lambda: mapped_column(server_default=text("7"), primary_key=True),
    "expression": lambda: mapped_column(default=func.random(), primary_key=True),
    "boolean": lambda: mapped_column(Boolean, primary_key=True),
    "float": lambda: mapped_column(Float, primary_key=True),
}


@pytest.mark.parametrize("column", KEYS.values(), ids=KEYS)
@trap
def test_a_key_that_the_database_makes_is_refused(world, column):
    """When the class is mapped, and not by values that cannot be decrypted later; and a key that is not exact."""
    with pytest.raises(ConfigError, match=r"Thing\.id"):
        key_of(world, column(), kind=int)


@pytest.mark.parametrize("kind", (str, UUID, int, bytes))
def test_a_key_of_the_application_may_be_text_a_uuid_a_number_or_bytes(ours_alone, kind):
    """Its aad is the label and the key as a tuple has it."""
    make = {str: lambda: "ä/1", UUID: uuid4, int: lambda: 4711, bytes: lambda: b"\x00key"}[kind]
    model = key_of(ours_alone, mapped_column(primary_key=True, default=make), kind=kind)
    with ours_alone.Session() as session:
        thing = model(phone="+1")
        session.add(thing)
        session.commit()
        message = session.scalar(select(model.phone)).message
        assert ours_alone.plain_cipher.decrypt(message, aad=("things.phone", thing.id)) == b"+1"
        if kind is UUID:
            assert ours_alone.plain_cipher.decrypt(message, aad=("things.phone", str(thing.id))) == b"+1"
        session.expire_all()
        assert thing.phone == "+1"


@trap
def test_a_default_key_is_evaluated_before_the_value_is_encrypted(world):
    """`default=` gives it in the statement otherwise, when the value is encrypted already."""
    row_id = world.add()
    assert world.stored(row_id) == "+1 555 0100"


def test_a_default_that_asks_for_the_statement_is_refused(ours_alone):
    model = key_of(
        ours_alone,
        mapped_column(primary_key=True, default=lambda context: context.get_current_parameters()["x"]),
    )
    with ours_alone.Session() as session, pytest.raises(EncryptedColumnError, match="takes no argument"):
        session.add(model(phone="+1"))
        session.flush()


def test_a_row_without_a_key_or_a_context_is_refused(ours_alone):
    """It would be bound to nothing."""
    model = key_of(ours_alone, mapped_column(primary_key=True))
    with ours_alone.Session() as session:
        session.add(model(phone="+1"))
        with pytest.raises(EncryptedColumnError, match=r"Thing\.phone cannot be encrypted: id of the object"):
            session.flush()
        session.rollback()
        session.add(ours_alone.User(id="1", phone="+1"))
        with pytest.raises(EncryptedColumnError, match="tenant of the object is not known"):
            session.flush()
        with pytest.raises(
            EncryptedColumnError, match=r"User\.phone of row 1 cannot be encrypted: it has no tenant"
        ):
            ours.encrypt_rows(session, ours_alone.User, [{"phone": None}, {"phone": "+1"}])


OPTIONS = {"unique": True, "index": True, "primary_key": True, "server_default": "x", "onupdate": lambda: "x"}


@pytest.mark.parametrize("option", OPTIONS)
@trap
def test_an_option_that_would_compare_messages_is_refused(world, option):
    with pytest.raises(ConfigError, match=option):
        world.kit.encrypted_text("users.phone", **{option: OPTIONS[option]}).__set_name__(
            type("T", (), {}), "x"
        )


ARGUMENTS = {"unique": lambda: UniqueConstraint("phone"), "index": lambda: Index("by_phone", "phone")}


@pytest.mark.parametrize("argument", ARGUMENTS.values(), ids=ARGUMENTS)
@trap
def test_a_constraint_that_would_compare_messages_is_refused(world, argument):
    """Of the table."""

    class Base(DeclarativeBase):
        pass

    class Thing(Base):
        __tablename__ = "things"
        __table_args__ = (argument(),)
        id: Mapped[str] = mapped_column(primary_key=True)
        phone = world.kit.encrypted_text("things.phone")

    with pytest.raises(ConfigError, match="in an index"):
        Base.registry.configure()


CONTEXTS = {
    "none": ("nothing", lambda: mapped_column(String)),
    "boolean": ("other", lambda: mapped_column(Boolean)),
    "computed": ("other", lambda: mapped_column(String, Computed("'x'"))),
    "on update": ("other", lambda: mapped_column(String, onupdate=lambda: "x")),
    "cascade": ("other", lambda: mapped_column(ForeignKey("others.id", onupdate="CASCADE"))),
}


@pytest.mark.parametrize(("name", "column"), CONTEXTS.values(), ids=CONTEXTS)
def test_a_context_that_changes_by_itself_or_is_not_exact_is_refused(name, column):
    class Base(DeclarativeBase):
        pass

    class Other(Base):
        __tablename__ = "others"
        id: Mapped[str] = mapped_column(primary_key=True)

    class Thing(Base):
        __tablename__ = "things"
        id: Mapped[str] = mapped_column(primary_key=True)
        other = column()
        phone = ours.encrypted_text("things.phone", context=(name,))

    with pytest.raises(ConfigError, match=name):
        Base.registry.configure()


@trap
def test_two_columns_cannot_have_one_label(world):
    """Their values could be exchanged."""

    class Base(DeclarativeBase):
        pass

    class Thing(Base):
        __tablename__ = "things"
        id: Mapped[str] = mapped_column(primary_key=True)
        one = world.kit.encrypted_text("things.phone")
        two = world.kit.encrypted_text("things.phone")

    with pytest.raises(ConfigError, match="a label of its own"):
        Base.registry.configure()


def test_a_class_of_a_wrong_declaration_stores_nothing(ours_alone):
    """SQLAlchemy refuses to use what could not be configured."""
    with pytest.raises(ConfigError):
        key_of(ours_alone, mapped_column(primary_key=True), kind=int)


@pytest.mark.parametrize("wrong", ((1,), ("",), ("x", "tenant"), ("x", (1,)), ("x", ("",))))
def test_a_declaration_of_wrong_types_is_refused(wrong):
    label, *context = wrong
    with pytest.raises(TypeError):
        ours.encrypted_text(label, **({"context": context[0]} if context else {}))


def test_a_context_may_have_other_names_than_the_attributes(ours_alone):
    """So that another framework's rows have the same, with a number and a composite key."""

    class Base(DeclarativeBase):
        pass

    class Thing(Base):
        __tablename__ = "things"
        owner_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
        place: Mapped[str] = mapped_column(primary_key=True)
        phone = ours.encrypted_text("t", context={"tenant": "owner_id", "app": "place"})

    Base.metadata.create_all(ours_alone.engine)
    with ours_alone.Session() as session:
        thing = Thing(owner_id=7, place="x", phone="+1")
        session.add(thing)
        session.commit()
        message = session.scalar(select(Thing.phone)).message
        context = {"tenant": "7", "app": "x"}
        assert ours_alone.plain_cipher.decrypt(message, context=context, aad=("t", 7, "x")) == b"+1"
        thing.owner_id = 8
        session.commit()
        assert thing.phone == "+1"


def test_an_attribute_may_have_another_name_than_its_column(ours_alone):
    class Base(DeclarativeBase):
        pass

    class Thing(Base):
        __tablename__ = "things"
        key: Mapped[str] = mapped_column("id", primary_key=True)
        tenant: Mapped[str] = mapped_column("owner")
        phone: Mapped[str | None] = ours.encrypted_text("t", context=("tenant",), name="telephone")

    Base.metadata.create_all(ours_alone.engine)
    with ours_alone.Session() as session:
        session.add(Thing(key="1", tenant="acme", phone="+1"))
        session.commit()
        thing = session.get(Thing, "1")
        thing.tenant = "umbrella"
        session.commit()
        assert thing.phone == "+1"
        thing.phone = None
        thing.tenant = "acme"
        session.commit()
        assert thing.phone is None


def test_inherited_columns_are_encrypted_too(ours_alone):
    """Of one table, where a class has columns that another has not, and of joined tables."""

    class Base(DeclarativeBase):
        pass

    class Person(Base):
        __tablename__ = "people"
        id: Mapped[str] = mapped_column(primary_key=True, default=lambda: str(uuid4()))
        kind: Mapped[str]
        tenant: Mapped[str]
        phone = ours.encrypted_text("people.phone", context=("tenant",))
        __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "person"}

    class Admin(Person):
        badge: Mapped[str | None] = ours.encrypted_text("people.badge", context=("tenant",), nullable=True)
        __mapper_args__ = {"polymorphic_identity": "admin"}

    class Pilot(Person):
        __tablename__ = "pilots"
        id: Mapped[str] = mapped_column(ForeignKey(Person.id), primary_key=True)
        licence = ours.encrypted_text("pilots.licence")
        __mapper_args__ = {"polymorphic_identity": "pilot"}

    Base.metadata.create_all(ours_alone.engine)
    with ours_alone.Session() as session:
        session.add_all(
            (
                Person(tenant="a", phone="+1"),
                Admin(tenant="a", phone="+2", badge="b"),
                Pilot(tenant="a", phone="+3", licence="l"),
            )
        )
        session.commit()
        for person in session.scalars(select(Person)):
            person.tenant = "b"
        session.commit()
        ours.decrypt_all(session, session.scalars(select(Person)).all())
        found = {type(each): each for each in session.scalars(select(Person))}
        assert [found[cls].phone for cls in (Person, Admin, Pilot)] == ["+1", "+2", "+3"]
        assert (found[Admin].badge, found[Pilot].licence) == ("b", "l")


def test_a_key_and_a_context_that_a_relationship_gives_are_known_in_time(ours_alone):
    """The flush copies them from the other object, after the first look at what is to be encrypted; in one call."""

    class Base(DeclarativeBase):
        pass

    class Tenant(Base):
        __tablename__ = "tenants"
        id: Mapped[str] = mapped_column(primary_key=True)

    class Person(Base):
        __tablename__ = "people"
        id: Mapped[str] = mapped_column(primary_key=True, default=lambda: str(uuid4()))
        tenant_id: Mapped[str] = mapped_column(ForeignKey(Tenant.id))
        tenant: Mapped[Tenant] = relationship()
        phone = ours.encrypted_text("people.phone", context={"tenant": "tenant_id"})

    class Profile(Base):
        __tablename__ = "profiles"
        person_id: Mapped[str] = mapped_column(ForeignKey(Person.id), primary_key=True)
        person: Mapped[Person] = relationship()
        note = ours.encrypted_text("profiles.note")

    Base.metadata.create_all(ours_alone.engine)
    with ours_alone.Session() as session:
        tenants = [Tenant(id=f"t{n}") for n in range(2)]
        people = [Person(tenant=tenants[n % 2], phone=f"+{n}") for n in range(6)]
        session.add_all([*people, *(Profile(person=person, note=f"of {person.phone}") for person in people)])
        session.commit()
        assert ours_alone.cipher.calls == ["encrypt", "encrypt"]
        session.expire_all()
        assert sorted(each.note for each in session.scalars(select(Profile))) == [
            f"of +{n}" for n in range(6)
        ]
        people[0].tenant = tenants[1]
        session.commit()
        assert (people[0].tenant_id, people[0].phone) == ("t1", "+0")


def test_a_validator_sees_the_plaintext(ours_alone):
    class Base(DeclarativeBase):
        pass

    class Thing(Base):
        __tablename__ = "things"
        id: Mapped[str] = mapped_column(primary_key=True)
        phone = ours.encrypted_text("things.phone")

        @validates("phone")
        def clean(self, key, value):
            return value.replace(" ", "")

    assert Thing(id="1", phone="+1 555").phone == "+1555"


def test_a_dataclass_must_not_show_the_value(ours_alone):
    """Its repr would decrypt it."""

    class Base(MappedAsDataclass, DeclarativeBase):
        pass

    class Shown(Base):
        __tablename__ = "shown"
        id: Mapped[str] = mapped_column(primary_key=True)
        phone: Mapped[str] = ours.encrypted_text("shown.phone")

    with pytest.raises(ConfigError, match="repr=False"):
        Base.registry.configure()

    class Other(MappedAsDataclass, DeclarativeBase):
        pass

    class Hidden(Other):
        __tablename__ = "hidden"
        id: Mapped[str] = mapped_column(primary_key=True)
        phone: Mapped[str] = ours.encrypted_text("hidden.phone", repr=False, compare=False)

    Other.metadata.create_all(ours_alone.engine)
    with ours_alone.Session() as session:
        session.add(Hidden("1", "+1 555"))
        session.commit()
        assert "555" not in repr(session.get(Hidden, "1"))
        assert session.get(Hidden, "1").phone == "+1 555"


def test_an_alias_is_tested_for_null_and_opened(ours_alone):
    row_id = ours_alone.add()
    other = aliased(ours_alone.User)
    with ours_alone.Session() as session:
        (user,) = session.scalars(select(other).where(other.phone.is_not(None)))
        assert (user.id, user.phone) == (row_id, "+1 555 0100")
        with pytest.raises(EncryptedColumnError):
            print(other.phone == "+1")
