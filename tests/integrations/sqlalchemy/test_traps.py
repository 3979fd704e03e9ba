"""What goes wrong with encrypted columns in sessions. Each test fails with the naive implementation."""

import pickle

import pytest
from sqlalchemy import event, insert, literal, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, make_transient

from kmsbridge import RoleError
from kmsbridge.integrations import sqlalchemy as ours
from kmsbridge.integrations.sqlalchemy import EncryptedColumnError
from tests.integrations.sqlalchemy.world import own_insert, trap
from tests.secrets.canaries import PLAINTEXT, assert_clean


@trap
def test_a_merged_value_is_stored(world):
    """`merge` copies mapped attributes, and nothing that stands beside them."""
    row_id = world.add()
    with world.Session() as session:
        session.merge(world.User(id=row_id, tenant="acme", phone="+2"))
        session.commit()
    assert world.stored(row_id) == "+2"


@trap
def test_a_merged_object_that_was_not_changed_keeps_its_message(world):
    """Though a value of it was read, and it is merged into another session."""
    row_id = world.add()
    before = world.column(row_id)
    with world.Session() as session:
        user = session.get(world.User, row_id)
        assert user.phone == "+1 555 0100"
    user.name = "new"
    with world.Session() as session:
        session.merge(user)
        session.commit()
    assert world.column(row_id, "name") == "new"
    assert world.column(row_id) == before


@trap
def test_bulk_save_stores_nothing_that_is_not_encrypted(world):
    """It calls no listener."""
    with world.Session() as session, pytest.raises(EncryptedColumnError, match="encrypt_rows"):
        session.bulk_save_objects([world.User(id="1", tenant="acme", phone="+1")])
    assert world.ids() == []


@trap
def test_bulk_insert_of_mappings_stores_nothing_that_is_not_encrypted(world):
    """Nor NULL in its place."""
    with world.Session() as session:
        with pytest.raises(EncryptedColumnError, match="encrypt_rows"):
            session.bulk_insert_mappings(world.User, [{"id": "1", "tenant": "acme", "phone": "+1"}])
        session.commit() if session.is_active else session.rollback()
    assert world.ids() == []


@trap
def test_a_session_that_is_not_bound_stores_nothing(world):
    """Neither a plaintext nor a placeholder."""
    with Session(world.engine) as session:
        session.add(world.User(id="1", tenant="acme", phone="+1"))
        with pytest.raises(RoleError, match="bind"):
            session.commit()
    assert world.ids() == []


@trap
def test_a_value_that_a_later_listener_assigns_is_encrypted(world):
    """One that was added to the session after the integration's own."""

    def later(session, *_):
        for user in session.new:
            user.phone = "+later"

    event.listen(world.Session, "before_flush", later)
    assert world.stored(world.add(phone="+1")) == "+later"


@trap
def test_a_key_that_a_later_listener_changes_is_the_one_that_counts(world):
    """The value is encrypted again."""

    def later(session, *_):
        for user in session.new:
            user.tenant = "umbrella"

    event.listen(world.Session, "before_flush", later)
    assert world.stored(world.add(phone="+1")) == "+1"


@pytest.mark.parametrize("flushed", (False, True))
@pytest.mark.parametrize("nested", (False, True))
@trap
def test_a_value_that_was_rolled_back_is_not_written_by_the_next_flush(world, flushed, nested):
    row_id = world.add()
    with world.Session() as session:
        user = session.get(world.User, row_id)
        point = session.begin_nested() if nested else session
        user.phone = "+rolled back"
        if flushed:
            session.flush()
        point.rollback()
        user.name = "kept"
        session.commit()
        assert user.phone == "+1 555 0100"
    assert world.column(row_id, "name") == "kept"
    assert world.stored(row_id) == "+1 555 0100"


def test_a_new_object_that_was_rolled_back_can_be_added_with_another_id(ours_alone):
    """Its value was encrypted for the first one."""
    with ours_alone.Session() as session:
        user = ours_alone.User(id="1", tenant="acme", phone="+1")
        session.add(user)
        session.flush()
        session.rollback()
        user.id, user.tenant = "2", "umbrella"
        session.add(user)
        session.commit()
        session.expire_all()
        assert session.get(ours_alone.User, "2").phone == "+1"
    assert ours_alone.stored("2") == "+1"


@pytest.mark.parametrize("how", ("refresh", "expire", "expire_all", "populate_existing"))
@trap
def test_a_value_that_was_dropped_before_the_flush_overwrites_nothing(world, how):
    """What was assigned is forgotten as any other attribute is, and the message stays."""
    row_id = world.add()
    before = world.column(row_id)
    with world.Session(autoflush=False) as session:
        user = session.get(world.User, row_id)
        user.phone = "+dropped"
        drop(session, user, how)
        user.name = "new"
        session.commit()
        assert user.phone == "+1 555 0100"
    assert world.column(row_id) == before


@pytest.mark.parametrize("how", ("refresh", "expire", "expire_all", "populate_existing"))
@trap
def test_a_value_that_was_read_does_not_go_stale(world, how):
    row_id = world.add()
    with world.Session() as session:
        user = session.get(world.User, row_id)
        assert user.phone == "+1 555 0100"
        session.rollback()
        with world.Session() as other:
            other.get(world.User, row_id).phone = "+2"
            other.commit()
        drop(session, user, how)
        assert user.phone == "+2"


def drop(session, user, how):
    if how == "refresh":
        session.refresh(user)
    elif how == "expire":
        session.expire(user)
    elif how == "expire_all":
        session.expire_all()
    else:
        session.scalars(select(type(user)).execution_options(populate_existing=True)).all()


@trap
def test_a_value_that_was_not_changed_is_not_encrypted_again(world):
    """So a host that only reads can change other columns."""
    row_id = world.add()
    before = world.column(row_id)
    with world.sessions(read=world.cipher)() as session:
        user = session.get(world.User, row_id)
        assert user.phone == "+1 555 0100"
        user.name = "new"
        session.flush()
        session.commit()
    assert world.column(row_id, "name") == "new"
    assert world.column(row_id) == before


@trap
def test_the_value_that_it_had_is_no_change(world):
    """Where it is known: it was read."""
    row_id = world.add()
    before = world.column(row_id)
    with world.Session() as session:
        user = session.get(world.User, row_id)
        user.phone = str(user.phone)
        assert user not in session.dirty or not session.is_modified(user)
        session.commit()
    assert world.column(row_id) == before


PLAIN = {"id": "1", "tenant": "acme", "phone": "+1"}
STATEMENTS = {
    "insert of a row": lambda session, model: session.execute(insert(model).values(**PLAIN)),
    "insert of rows": lambda session, model: session.execute(insert(model), [PLAIN, PLAIN | {"id": "2"}]),
    "insert of the table": lambda session, model: session.execute(insert(model.__table__), [PLAIN]),
    "update": lambda session, model: session.execute(update(model).values(phone="+2")),
    "update by key": lambda session, model: session.execute(update(model), [{"id": "old", "phone": "+2"}]),
    "update of the table": lambda session, model: session.execute(update(model.__table__).values(phone="+2")),
    "upsert": lambda session, model: session.execute(
        own_insert(session)(model)
        .values(**PLAIN)
        .on_conflict_do_update(index_elements=["id"], set_={"phone": "+2", "tenant": "acme", "prefs": None})
    ),
    "bulk update": lambda session, model: session.bulk_update_mappings(model, [{"id": "old", "phone": "+2"}]),
    "connection": lambda session, model: session.connection().execute(insert(model.__table__), [PLAIN]),
}


@pytest.mark.parametrize("statement", STATEMENTS.values(), ids=STATEMENTS)
@trap
def test_a_statement_with_a_plaintext_is_refused(world, statement):
    """The error does not show it, and names what to do."""
    world.add(id="old")
    before = world.column("old")
    with world.Session() as session, pytest.raises(EncryptedColumnError, match="encrypt_rows") as caught:
        try:
            statement(session, world.User)
        except TypeError as error:  # the naive one has no such attribute
            raise AssertionError("stored nothing") from error
    assert "+2" not in str(caught.value)
    assert world.column("old") == before
    assert world.ids() == ["old"]


ROWS = {
    "insert": lambda session, model, rows: session.execute(insert(model), rows),
    "table": lambda session, model, rows: session.execute(insert(model.__table__), rows),
    "values": lambda session, model, rows: session.execute(insert(model).values(rows)),
    "bulk": lambda session, model, rows: session.bulk_insert_mappings(model, rows),
    "upsert": lambda session, model, rows: session.execute(
        (made := own_insert(session)(model).values(rows)).on_conflict_do_update(
            index_elements=["id"], set_={name: made.excluded[name] for name in ("phone", "prefs", "tenant")}
        )
    ),
}


@pytest.mark.parametrize("statement", ROWS.values(), ids=ROWS)
@trap
def test_rows_that_were_encrypted_first_are_stored(world, statement):
    """All in one call, with ids where there were none."""
    world.cipher.calls.clear()
    with world.Session() as session:
        rows = [{"tenant": f"t{n % 3}", "phone": f"+{n}", "id": str(n)} for n in range(6)]
        encrypted = world.kit.encrypt_rows(session, world.User, rows)
        assert world.cipher.calls == ["encrypt"]
        statement(session, world.User, encrypted)
        session.commit()
    assert [world.stored(str(n)) for n in range(6)] == [f"+{n}" for n in range(6)]


@pytest.mark.parametrize("loaded", (True, False))
@pytest.mark.parametrize("read_before", (True, False))
@trap
def test_a_change_of_the_context_encrypts_the_value_for_the_new_one(world, loaded, read_before):
    """Also where the object was expired, so that nobody knows what the context was."""
    row_id = world.add(prefs={"dark": True})
    with world.Session() as session:
        user = session.get(world.User, row_id)
        if read_before:
            assert user.phone == "+1 555 0100"
        if not loaded:
            session.expire(user)
        user.tenant = "umbrella"
        session.commit()
    assert world.stored(row_id) == "+1 555 0100"
    assert world.stored(row_id, "prefs") == {"dark": True}


def test_one_attribute_that_is_loaded_again_belongs_to_the_row_as_it_is_stored(ours_alone):
    """And not to the context that was assigned and not stored yet."""
    row_id = ours_alone.add()
    with ours_alone.Session(autoflush=False) as session:
        user = session.get(ours_alone.User, row_id)
        user.tenant = "umbrella"
        session.refresh(user, ["phone"])
        assert user.phone == "+1 555 0100"
        user.tenant = "third"
        session.commit()
    assert ours_alone.stored(row_id) == "+1 555 0100"


def test_a_detached_object_s_context_may_change(ours_alone):
    """It is added to another session, or merged without loading."""
    row_id = ours_alone.add()
    with ours_alone.Session() as session:
        user = session.get(ours_alone.User, row_id)
    with ours_alone.Session() as session:
        merged = session.merge(user, load=False)
        assert merged.phone == "+1 555 0100"
    user.tenant = "umbrella"
    with ours_alone.Session() as session:
        session.add(user)
        session.commit()
    assert ours_alone.stored(row_id) == "+1 555 0100"


def test_rows_that_an_insert_returns_are_read(ours_alone):
    with ours_alone.Session() as session:
        rows = ours.encrypt_rows(session, ours_alone.User, [{"id": "1", "tenant": "acme", "phone": "+1"}])
        (user,) = session.scalars(insert(ours_alone.User).returning(ours_alone.User), rows).all()
        assert user.phone == "+1"
        user.tenant = "umbrella"
        session.commit()
    assert ours_alone.stored("1") == "+1"


def test_a_statement_that_stores_messages_changes_the_objects_too(ours_alone):
    """As SQLAlchemy does for any other column."""
    row_id = ours_alone.add()
    with ours_alone.Session() as session:
        user = session.get(ours_alone.User, row_id)
        assert user.phone == "+1 555 0100"
        (row,) = ours.encrypt_rows(
            session, ours_alone.User, [{"id": row_id, "tenant": "acme", "phone": "+2"}]
        )
        session.execute(
            update(ours_alone.User).where(ours_alone.User.id == row_id).values(phone=row["phone"])
        )
        assert user.phone == "+2"
        session.commit()
    assert ours_alone.stored(row_id) == "+2"


@trap
def test_bulk_save_does_not_change_a_context(world):
    """It would leave the values bound to the old one."""
    row_id = world.add()
    with world.Session() as session:
        user = session.get(world.User, row_id)
        user.tenant = "umbrella"
        with pytest.raises(EncryptedColumnError, match="could not be decrypted"):
            session.bulk_save_objects([user])
        session.rollback()
    assert world.stored(row_id) == "+1 555 0100"


@trap
def test_a_change_of_the_id_encrypts_the_value_for_the_new_one(world):
    row_id = world.add()
    with world.Session() as session:
        session.get(world.User, row_id).id = "new"
        session.commit()
    assert world.stored("new") == "+1 555 0100"


@trap
def test_a_host_that_cannot_read_does_not_change_a_context(world):
    """It would lose the value."""
    row_id = world.add()
    with world.sessions(write=world.cipher)() as session:
        session.get(world.User, row_id).tenant = "umbrella"
        with pytest.raises(RoleError, match=r"User\.phone cannot be decrypted"):
            session.commit()
    assert world.stored(row_id) == "+1 555 0100"


CHANGES = {
    "orm": lambda session, model: session.execute(update(model).values(tenant="umbrella")),
    "attribute": lambda session, model: session.execute(update(model).values({model.tenant: "umbrella"})),
    "ordered": lambda session, model: session.execute(
        update(model).ordered_values((model.tenant, "umbrella"))
    ),
    "by key": lambda session, model: session.execute(update(model), [{"id": "1", "tenant": "umbrella"}]),
    "table": lambda session, model: session.execute(update(model.__table__).values(tenant="umbrella")),
    "key": lambda session, model: session.execute(update(model).values(id="2")),
    "bulk": lambda session, model: session.bulk_update_mappings(model, [{"id": "1", "tenant": "umbrella"}]),
    "upsert": lambda session, model: session.execute(
        own_insert(session)(model)
        .values(id="1", tenant="umbrella")
        .on_conflict_do_update(index_elements=["id"], set_={"tenant": "umbrella"})
    ),
}


@pytest.mark.parametrize("statement", CHANGES.values(), ids=CHANGES)
@trap
def test_a_statement_that_changes_a_context_or_an_id_is_refused(world, statement):
    """Nothing encrypts the values anew."""
    world.add(id="1")
    with world.Session() as session:
        with pytest.raises(EncryptedColumnError, match="could not be decrypted"):
            statement(session, world.User)
        session.rollback()
    assert world.stored("1") == "+1 555 0100"


UPSERTS = {
    "another conflict": {"index_elements": ["name"], "set_": {"phone", "prefs", "tenant"}},
    "any conflict": {"set_": {"phone", "prefs", "tenant"}},
    "another context": {"index_elements": ["id"], "set_": {"phone"}},
}


@pytest.mark.parametrize("how", UPSERTS.values(), ids=UPSERTS)
@trap
def test_an_upsert_that_keeps_another_row_s_key_or_context_is_refused(world, how):
    """Though its values are encrypted: they are bound to the row that was not inserted."""
    with world.Session() as session:
        if "index_elements" not in how and session.get_bind().dialect.name == "postgresql":
            pytest.skip("PostgreSQL wants to know which conflict is meant")
        rows = world.kit.encrypt_rows(session, world.User, [{"id": "1", "tenant": "acme", "phone": "+1"}])
        made = own_insert(session)(world.User).values(rows)
        set_ = {name: made.excluded[name] for name in how["set_"]}
        with pytest.raises(EncryptedColumnError, match="conflict on the primary key"):
            try:
                session.execute(made.on_conflict_do_update(**how | {"set_": set_}))
            except SQLAlchemyError as error:
                raise AssertionError("the database was asked") from error


@trap
def test_a_copied_row_is_bound_anew(world):
    """A row that SQL copied has a message of another row, which is not opened there."""
    row_id = world.add()
    with world.Session() as session:
        columns = ("id", "tenant", "phone")
        table = world.User.__table__
        copy = select(literal("copy"), table.c.tenant, table.c.phone)
        session.execute(insert(table).from_select(columns, copy.where(table.c.id == row_id)))
        user = session.get(world.User, "copy")
        world.kit.rebind(session, [user], "phone", was=lambda _: {"id": row_id})
        session.commit()
    assert world.stored("copy") == "+1 555 0100"
    assert world.stored(row_id) == "+1 555 0100"


@trap
def test_an_object_that_is_made_another_row_is_encrypted_for_it(world):
    """`make_transient`, and another id."""
    row_id = world.add()
    with world.Session() as session:
        user = session.get(world.User, row_id)
        make_transient(user)
        user.id = "copy"
        session.add(user)
        session.commit()
    assert world.stored("copy") == "+1 555 0100"


@pytest.mark.parametrize(
    "compare",
    (
        lambda column: column == "+1",
        lambda column: column != "+1",
        lambda column: column.in_(["+1"]),
        lambda column: column.not_in(["+1"]),
        lambda column: column.like("+%"),
        lambda column: column.startswith("+"),
        lambda column: column.contains("1"),
        lambda column: column > "+",
        lambda column: column.between("a", "b"),
        lambda column: "+1" + column,
        lambda column: column.desc(),
        lambda column: column.distinct(),
        lambda column: column.op("~")("1"),
    ),
)
@trap
def test_a_comparison_is_an_error_and_not_false(world, compare):
    with pytest.raises(EncryptedColumnError, match="is encrypted: the database cannot use"):
        compare(world.User.phone)
    with pytest.raises(EncryptedColumnError):
        compare(world.User.__table__.c.phone)


@pytest.mark.parametrize("select_", (lambda query, c: query.order_by(c), lambda query, c: query.group_by(c)))
@trap
def test_an_order_of_messages_is_an_error(world, select_):
    """Of a session and of a connection."""
    with world.Session() as session:
        with pytest.raises(EncryptedColumnError, match="BY on it"):
            session.scalars(select_(select(world.User), world.User.phone))
        with pytest.raises(EncryptedColumnError, match="BY on it"):
            session.connection().execute(select_(select(world.User.id), world.User.__table__.c.phone))


@trap
def test_a_comparison_of_columns_is_an_error_and_not_false(world):
    """With another attribute at once; with a table's column when it becomes SQL: SQLAlchemy looks for columns in lists."""
    table = world.User.__table__
    with pytest.raises(EncryptedColumnError):
        print(world.User.phone == world.User.name)
    with world.Session() as session, pytest.raises(EncryptedColumnError, match="cannot use a comparison"):
        session.execute(select(table.c.id).where(table.c.phone == table.c.name))


@trap
def test_filter_by_is_an_error_and_not_false(world):
    with world.Session() as session, pytest.raises(EncryptedColumnError):
        session.query(world.User).filter_by(phone="+1")


@trap
def test_pickled_objects_carry_no_plaintext(world):
    """Neither one that was read nor one that was just stored."""
    globals()["User"] = world.User
    world.User.__module__, world.User.__qualname__ = __name__, "User"
    with world.Session(expire_on_commit=False) as session:
        user = world.User(tenant="acme", phone=PLAINTEXT.text())
        session.add(user)
        session.commit()
        assert user.phone == PLAINTEXT.text()
        session.expunge(user)
        pickled = pickle.dumps(user)
        assert_clean(pickled, "the pickle")
        again = pickle.loads(pickled)
        session.add(again)
        assert again.phone == PLAINTEXT.text()


@trap
def test_an_object_whose_value_is_not_encrypted_yet_cannot_be_pickled(world):
    globals()["User"] = world.User
    world.User.__module__, world.User.__qualname__ = __name__, "User"
    with pytest.raises(EncryptedColumnError, match="flush"):
        pickle.dumps(world.User(tenant="acme", phone=PLAINTEXT.text()))


@trap
def test_null_and_empty_text_are_two_things(world):
    """In the database and in the object."""
    null, empty = world.add(phone=None), world.add(phone="")
    assert world.column(null) is None
    assert world.stored(empty) == ""
    with world.Session() as session:
        assert session.get(world.User, empty).phone == ""
        assert session.get(world.User, null).phone is None
        assert session.scalars(select(world.User.id).where(world.User.phone.is_(None))).all() == [null]
        assert session.scalars(select(world.User.id).where(world.User.phone.is_not(None))).all() == [empty]
        assert session.scalars(select(world.User.id).where(world.User.phone == None)).all() == [null]  # noqa: E711


@trap
def test_json_that_was_read_cannot_be_changed_in_place(world):
    """A change in place would be lost."""
    row_id = world.add(prefs={"tags": ["a"], "deep": {"x": 1}})
    with world.Session() as session:
        user = session.get(world.User, row_id)
        for change in (
            lambda: user.prefs["tags"].append("b"),
            lambda: user.prefs.update(y=1),
            lambda: user.prefs["deep"].pop("x"),
        ):
            with pytest.raises(TypeError, match="assign"):
                change()


@trap
def test_values_of_several_tenants_are_encrypted_in_one_call(world):
    """Those of one flush."""
    with world.Session() as session:
        session.add_all(world.User(tenant=f"t{n % 3}", phone=f"+{n}", prefs={"n": n}) for n in range(9))
        session.commit()
    assert world.cipher.calls == ["encrypt"]
    assert len(world.cipher.values) == 18


@trap
def test_many_values_are_decrypted_in_one_call(world):
    """Of all objects and columns, and no more of them when the attributes are read."""
    with world.Session() as session:
        session.add_all(world.User(tenant=f"t{n % 3}", phone=f"+{n}", id=str(n)) for n in range(9))
        session.commit()
        users = session.scalars(select(world.User)).all()
        world.cipher.calls.clear()
        world.kit.decrypt_all(session, users, "phone", "prefs")
        assert {user.phone for user in users} == {f"+{n}" for n in range(9)}
        assert world.cipher.calls == ["decrypt"]


@trap
def test_the_object_holds_no_plaintext_that_shows(world):
    """In `vars`, which error reporters and debuggers print."""
    with world.Session() as session:
        user = world.User(tenant="acme", phone=PLAINTEXT.text())
        assert_clean(repr(vars(user)), "a new object")
        session.add(user)
        session.commit()
        assert user.phone == PLAINTEXT.text()
        assert_clean(repr(vars(user)), "an object that was read")
