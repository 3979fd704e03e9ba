"""Encrypted columns that are looked up by a blind index, and parts of them that are shown by another role."""

import asyncio
from types import SimpleNamespace

import pytest
from alembic.autogenerate import compare_metadata, produce_migrations, render_python_code
from alembic.migration import MigrationContext
from sqlalchemy import UniqueConstraint, create_engine, insert, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, aliased, mapped_column
from sqlalchemy.pool import StaticPool

from kmsbridge import ConfigError, EnvelopeCipher, RoleError, SecretValue
from kmsbridge.blindindex import BlindIndex
from kmsbridge.integrations.sqlalchemy import (
    EncryptedColumnError,
    EncryptedMapped,
    bind,
    decrypt_all,
    encrypt_rows,
    encrypted_json,
    encrypted_text,
    index_column,
    partial_column,
)
from kmsbridge.partial import LAST4


def index(*, bits=128, label="users.phone"):
    return BlindIndex(label, keys=[SecretValue(bytes(range(32)))], normalize="digits", bits=bits)


def mapped(by_phone):
    class Base(DeclarativeBase):
        pass

    class User(Base):
        __tablename__ = "users"
        __table_args__ = (UniqueConstraint("tenant", "phone_index"),)
        id: Mapped[str] = mapped_column(primary_key=True)
        tenant: Mapped[str]
        phone: EncryptedMapped[str | None] = encrypted_text("users.phone", context=("tenant",))
        phone_index: Mapped[bytes | None] = index_column("phone", by_phone, index=True)
        phone_last4: Mapped[str | None] = partial_column("phone", LAST4)

    return Base, User


@pytest.fixture
def world(service, cipher):
    """A table, a session that may do everything, and what parts are encrypted with."""
    phone_index = index()
    base, user = mapped(phone_index)
    engine = create_engine("sqlite://", poolclass=StaticPool)
    base.metadata.create_all(engine)
    with EnvelopeCipher.from_uri("fake:other") as partials, Session(engine) as session:
        bind(session, write=cipher, read=cipher, partial=partials)
        yield SimpleNamespace(
            Base=base,
            User=user,
            engine=engine,
            session=session,
            index=phone_index,
            cipher=cipher,
            partials=partials,
        )
    engine.dispose()


@pytest.fixture
def user(world):
    """One that is stored."""
    made = world.User(id="1", tenant="acme", phone="1 555 0100")
    world.session.add(made)
    world.session.commit()
    return made


def beside(world, row_id="1"):
    """What the database has beside the value, decrypted as the partial's documentation says."""
    with world.engine.connect() as connection:
        query = text("SELECT tenant, phone_index, phone_last4 FROM users WHERE id = :id")
        tenant, found, part = connection.execute(query, {"id": row_id}).one()
    if part is not None:
        aad = LAST4.aad("users.phone", row_id)
        part = world.partials.decrypt(part, context={"tenant": tenant}, aad=aad).decode()
    return found, part


def test_a_value_is_found_by_the_tenant_that_owns_it(world, user):
    """However it is written, in a class and in an alias of it."""
    other = aliased(world.User)
    for model in (world.User, other):
        query = select(model.id)
        assert world.session.scalars(query.where(model.phone.matches("1-555-0100", tenant="acme"))).all() == [
            "1"
        ]
        assert world.session.scalars(query.where(model.phone.matches("1-555-0100", tenant="x"))).all() == []
        assert world.session.scalars(query.where(model.phone.matches("15550101", tenant="acme"))).all() == []
    assert beside(world) == (world.index.of("15550100", tenant="acme"), "0100")


def test_what_is_stored_beside_a_value_follows_it(world, user):
    """To another value, to another tenant, to NULL and back; also where the object was expired."""
    user.phone = "1 555 0199"
    world.session.commit()
    assert beside(world) == (world.index.of("15550199", tenant="acme"), "0199")
    user.tenant = "umbrella"
    world.session.commit()
    assert beside(world) == (world.index.of("15550199", tenant="umbrella"), "0199")
    user.id = "2"
    world.session.commit()
    assert beside(world, "2") == (world.index.of("15550199", tenant="umbrella"), "0199")
    user.phone = None
    world.session.commit()
    assert beside(world, "2") == (None, None)
    user.tenant = "acme"
    world.session.commit()
    user.phone = "1 555 0100"
    world.session.commit()
    assert beside(world, "2") == (world.index.of("15550100", tenant="acme"), "0100")
    assert (user.phone, user.phone_last4) == ("1 555 0100", "0100")


def test_a_message_that_is_assigned_gets_what_is_stored_beside_its_value(world, user):
    """Of a new object and of one that is stored, where `encrypt_rows` made it and no more of its row is given."""
    rows = [{"id": row_id, "tenant": "acme", "phone": f"1 555 019{row_id}"} for row_id in ("1", "2")]
    changed, new = encrypt_rows(world.session, world.User, rows)
    assert user.phone_last4 == "0100"
    user.phone = changed["phone"]
    world.session.add(world.User(id="2", tenant="acme", phone=new["phone"]))
    world.session.commit()
    for row_id in ("1", "2"):
        assert beside(world, row_id) == (world.index.of(f"1555019{row_id}", tenant="acme"), f"019{row_id}")


def test_a_later_listener_changes_what_is_beside_the_value_too(world, user):
    from sqlalchemy import event

    def later(session, *_):
        user.phone = None

    event.listen(world.session, "before_flush", later)
    user.tenant = "umbrella"
    world.session.commit()
    assert beside(world) == (None, None)


def test_equal_values_of_a_tenant_can_be_refused(world, user):
    """By a UNIQUE constraint on the index."""
    world.session.add(world.User(id="2", tenant="umbrella", phone="1 555 0100"))
    world.session.commit()
    world.session.add(world.User(id="3", tenant="acme", phone="15550100"))
    with pytest.raises(IntegrityError):
        world.session.commit()


def test_rows_for_statements_have_what_is_beside_the_values(world):
    """In as many calls as there are roles."""
    rows: list[dict[str, object]] = [
        {"id": str(n), "tenant": "acme", "phone": f"1 555 010{n}"} for n in range(3)
    ]
    rows.append({"id": "9", "tenant": "acme", "phone": None})
    world.session.execute(insert(world.User), encrypt_rows(world.session, world.User, rows))
    world.session.commit()
    assert beside(world, "2") == (world.index.of("15550102", tenant="acme"), "0102")
    assert beside(world, "9") == (None, None)
    with pytest.raises(EncryptedColumnError, match="computed from 'phone'"):
        encrypt_rows(world.session, world.User, [{"id": "1", "tenant": "acme", "phone_last4": "0100"}])


def test_a_statement_that_would_leave_an_index_as_it_was_is_refused(world, user):
    (row,) = encrypt_rows(world.session, world.User, [{"id": "1", "tenant": "acme", "phone": "1 555 0199"}])
    with pytest.raises(EncryptedColumnError, match="computed from it"):
        world.session.execute(update(world.User).where(world.User.id == "1").values(phone=row["phone"]))
    world.session.execute(update(world.User), [row])
    world.session.commit()
    assert beside(world) == (world.index.of("15550199", tenant="acme"), "0199")


def test_a_host_that_shows_parts_cannot_decrypt_values(world, user):
    """Nor can one that decrypts values show parts; and a web server may do neither, yet write both."""
    with Session(world.engine) as session:
        bind(session, partial=world.partials.decryptor)
        shown = session.get(world.User, "1")
        decrypt_all(session, [shown])
        assert shown.phone_last4 == "0100"
        with pytest.raises(RoleError, match="read=decryptor"):
            print(shown.phone)
    with Session(world.engine) as session:
        bind(session, read=world.cipher.decryptor)
        shown = session.get(world.User, "1")
        decrypt_all(session, [shown])
        assert shown.phone == "1 555 0100"
        with pytest.raises(RoleError, match="partial=decryptor"):
            print(shown.phone_last4)
    with Session(world.engine) as session:
        bind(session, write=world.cipher.encryptor, partial=world.partials.encryptor)
        session.add(world.User(id="2", tenant="acme", phone="1 555 0199"))
        session.commit()
    assert beside(world, "2")[1] == "0199"
    with Session(world.engine) as session:
        bind(session, write=world.cipher.encryptor)
        session.add(world.User(id="3", tenant="acme", phone="1 555 0198"))
        with pytest.raises(RoleError, match="partial=encryptor"):
            session.commit()


def test_a_part_cannot_be_assigned(world):
    with pytest.raises(EncryptedColumnError, match="computed from 'phone'"):
        world.User(id="1", phone_last4="0100")


def test_a_query_says_the_tenant_and_a_column_needs_an_index(world):
    with pytest.raises(TypeError, match="with a tenant"):
        world.User.phone.matches("1")
    with pytest.raises(EncryptedColumnError, match="no blind index"):
        world.User.phone_last4.matches("1", tenant="acme")
    with pytest.raises(ValueError, match="neither a digit"):
        world.User.phone.matches("one", tenant="acme")


def test_a_value_that_the_normalizer_refuses_is_not_stored(world):
    """And not shown by the error."""
    world.session.add(world.User(id="1", tenant="acme", phone="no number"))
    with pytest.raises(ValueError, match="neither a digit") as caught:
        world.session.commit()
    assert "no number" not in str(caught.value)


def test_a_short_index_never_gives_another_tenant_s_rows(world, cipher):
    """Though it gives rows with other values."""
    base, user = mapped(index(bits=4))
    user.__table__.constraints = {
        c for c in user.__table__.constraints if not isinstance(c, UniqueConstraint)
    }
    world.Base.metadata.drop_all(world.engine)
    base.metadata.create_all(world.engine)
    numbers = range(64)
    world.session.add_all(user(id=f"{t}{n}", tenant=t, phone=f"{n}") for t in "ab" for n in numbers)
    world.session.commit()
    found = world.session.scalars(select(user.id).where(user.phone.matches("7", tenant="a"))).all()
    assert "a7" in found
    assert 1 < len(found) < 64
    assert {row_id[0] for row_id in found} == {"a"}


def test_an_asyncio_session_stores_and_finds(world):
    """The keys of the index are loaded on a thread."""

    async def work():
        engine = create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool)
        async with engine.begin() as connection:
            await connection.run_sync(world.Base.metadata.create_all)
        async with AsyncSession(engine, expire_on_commit=False) as session:
            bind(session, write=world.cipher, read=world.cipher, partial=world.partials)
            session.add(world.User(id="1", tenant="acme", phone="1 555 0100"))
            await session.commit()
            session.expunge_all()
            query = select(world.User).where(world.User.phone.matches("15550100", tenant="acme"))
            (user,) = (await session.scalars(query)).all()
            await decrypt_all(session, [user])
            assert (user.phone, user.phone_last4) == ("1 555 0100", "0100")
        await engine.dispose()

    asyncio.run(work())


def test_a_migration_has_the_columns_beside_and_the_second_one_is_empty(world):
    with world.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, world.Base.metadata) == []
        world.Base.metadata.drop_all(connection)
        code = render_python_code(produce_migrations(context, world.Base.metadata).upgrade_ops)
    assert "sa.Column('phone_index', sa.LargeBinary(length=16), nullable=True)" in code
    assert "sa.Column('phone_last4', sa.LargeBinary(), nullable=True)" in code
    assert "kmsbridge" not in code


DECLARATIONS = {
    "no attribute": {"of": "nothing"},
    "not text": {"of": "prefs"},
    "no tenant": {"context": {"owner": "tenant"}},
}


@pytest.mark.parametrize("wrong", DECLARATIONS.values(), ids=DECLARATIONS)
def test_an_index_of_what_cannot_be_looked_up_is_refused(wrong):
    """When the class is mapped."""

    class Base(DeclarativeBase):
        pass

    class Thing(Base):
        __tablename__ = "things"
        id: Mapped[str] = mapped_column(primary_key=True)
        tenant: Mapped[str]
        phone = encrypted_text("things.phone", context=wrong.get("context", ("tenant",)))
        prefs = encrypted_json("things.prefs")
        found = index_column(wrong.get("of", "phone"), index())

    with pytest.raises(ConfigError):
        Base.registry.configure()
