"""Sessions of asyncio: a key service never blocks the event loop, and nothing is decrypted by surprise."""

import asyncio
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import insert, inspect, select
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool

import kmsbridge
from kmsbridge import AuthenticationError, RoleError, aio
from kmsbridge.integrations import sqlalchemy as ours
from kmsbridge.integrations.sqlalchemy import EncryptedColumnError
from tests.integrations.sqlalchemy.world import trap
from tests.support import PATIENCE


def running(world, work, **ciphers):
    """Run `work(sessions)` with asyncio sessions and a new database."""

    async def run():
        engine, sessions = world.asynchronous(**ciphers)
        try:
            async with engine.begin() as connection:
                await connection.run_sync(world.Base.metadata.create_all)
            return await work(sessions)
        finally:
            await engine.dispose()

    return asyncio.run(run())


class Slow:
    """A key service each of whose calls lasts until the event loop has run meanwhile, or stands still too long."""

    def __init__(self, patience):
        self.patience, self.loop, self.calls, self.stalled = patience, None, 0, 0

    def before(self, operation):
        if self.loop is not None and "wrap" in operation:
            turn = threading.Event()
            self.loop.call_soon_threadsafe(turn.set)
            self.calls += 1
            self.stalled += not turn.wait(self.patience)


@pytest.fixture
def slow(world, service):
    """Waits long for the loop of the integration, and a moment for that of the naive one, which stands still."""
    slow = Slow(30 if world.kit is ours else 0.1)
    service.before = slow.before
    return slow


@pytest.fixture(params=("aio", "threads"))
def ciphers(request, world, service):
    """One to write and one to read, each with its own cache: of kmsbridge.aio, and of kmsbridge."""
    awaited = request.param == "aio" and world.kit is ours  # the naive implementation knows no await
    module = aio if awaited else kmsbridge
    write, read = (module.EnvelopeCipher.from_uri("fake:app") for _ in range(2))
    yield {"write": write, "read": read}
    for cipher in (write, read):
        if awaited:
            asyncio.run(cipher.close())
        else:
            cipher.close()


@trap
def test_a_slow_key_service_does_not_stall_the_event_loop(world, slow, ciphers):
    """In a flush, whose wraps it waits for, and in `decrypt_all`."""

    async def work(sessions):
        slow.loop = asyncio.get_running_loop()
        async with sessions() as session:
            session.add_all(world.User(tenant=tenant, phone=f"+{tenant}") for tenant in ("a", "b"))
            await session.commit()
            wraps = slow.calls
            session.expunge_all()
            users = (await session.scalars(select(world.User))).all()
            await world.kit.decrypt_all(session, users, "phone")
            assert {user.phone for user in users} == {"+a", "+b"}
        assert wraps > 0
        assert slow.calls > wraps
        assert slow.stalled == 0

    running(world, work, **ciphers)


@pytest.mark.parametrize("module", (aio, kmsbridge), ids=("aio", "threads"))
def test_no_session_waits_for_another_behind_it_in_the_executor(ours_alone, module):
    """Which has one thread: many tasks want the same data key, to encrypt and to decrypt."""

    async def work(sessions):
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        write, read = (module.EnvelopeCipher.from_uri("fake:app") for _ in range(2))

        def session_of(*objects):
            session = AsyncSession()
            ours.bind(session, write=write, read=read)
            session.add_all(objects)
            return session

        async def together(work):
            return await asyncio.wait_for(asyncio.gather(*work), PATIENCE)

        rows = [[{"id": f"{number:02}", "tenant": "acme", "phone": f"+{number}"}] for number in range(20)]
        encrypted = await together(ours.encrypt_rows(session_of(), ours_alone.User, each) for each in rows)
        async with sessions() as session:
            await session.execute(insert(ours_alone.User), [row for each in encrypted for row in each])
            users = (await session.scalars(select(ours_alone.User).order_by(ours_alone.User.id))).all()
            session.expunge_all()
        apart = [session_of(user) for user in users]
        await together(
            ours.decrypt_all(session, [user], "phone") for session, user in zip(apart, users, strict=True)
        )
        assert [user.phone for user in users] == [f"+{number}" for number in range(20)]
        for cipher in (write, read):
            await cipher.close() if module is aio else cipher.close()

    running(ours_alone, work)


@trap
def test_reading_an_attribute_names_what_to_await(world):
    """It would block the event loop, or find that out only where the data key is not at hand."""

    async def work(sessions):
        async with sessions() as session:
            session.add(world.User(tenant="acme", phone="+1"))
            await session.commit()
            session.expunge_all()
            (user,) = (await session.scalars(select(world.User))).all()
            with pytest.raises(EncryptedColumnError, match=r'await decrypt_all\(session, objects, "phone"\)'):
                print(user.phone)
            await world.kit.decrypt_all(session, [user], "phone")
            assert user.phone == "+1"

    running(world, work)


def test_a_value_that_was_just_stored_can_be_read(ours_alone):
    """Of an object that was not loaded again; and `run_sync` may read any."""

    async def work(sessions):
        async with sessions() as session:
            user = ours_alone.User(tenant="acme", phone="+1")
            session.add(user)
            await session.commit()
            assert user.phone == "+1"
            await session.refresh(user)
            assert await session.run_sync(lambda _: user.phone) == "+1"

    running(ours_alone, work)


@trap
def test_rows_are_encrypted_by_awaiting_it(world):
    async def work(sessions):
        async with sessions() as session:
            rows = [{"tenant": f"t{n % 2}", "id": str(n), "phone": f"+{n}"} for n in range(4)]
            await session.execute(insert(world.User), await world.kit.encrypt_rows(session, world.User, rows))
            users = (await session.scalars(select(world.User).order_by(world.User.id))).all()
            await world.kit.decrypt_all(session, users, "phone", "prefs")
            assert [user.phone for user in users] == ["+0", "+1", "+2", "+3"]

    running(world, work)


@trap
def test_a_changed_context_encrypts_the_value_anew(world):
    """Within the flush, and without loading anything by surprise."""

    async def work(sessions):
        async with sessions() as session:
            session.add(world.User(tenant="acme", phone="+1"))
            await session.commit()
            session.expunge_all()
            (user,) = (await session.scalars(select(world.User))).all()
            session.expire(user)
            user.tenant = "umbrella"
            await session.commit()
            session.expunge_all()
            (user,) = (await session.scalars(select(world.User))).all()
            await world.kit.decrypt_all(session, [user], "phone")
            assert (user.tenant, user.phone) == ("umbrella", "+1")

    running(world, work)


def test_a_cancelled_flush_leaves_the_value_to_the_next_one(ours_alone, service):
    """The task that waits for the key service is cancelled."""

    async def work(sessions):
        async with sessions() as session:
            user = ours_alone.User(id="1", tenant="acme", phone="+1")
            session.add(user)
            begun, cancelled = asyncio.Event(), threading.Event()
            loop = asyncio.get_running_loop()

            def wait(operation):
                loop.call_soon_threadsafe(begun.set)
                assert cancelled.wait(PATIENCE)

            service.before = wait
            flush = asyncio.create_task(session.flush())
            await begun.wait()
            flush.cancel()
            with pytest.raises(asyncio.CancelledError):
                await flush
            service.before = lambda operation: None
            cancelled.set()
            await session.commit()
            assert inspect(user).persistent
            await session.refresh(user)
            await ours.decrypt_all(session, [user])
            assert user.phone == "+1"

    running(ours_alone, work)


def test_the_error_of_a_message_says_which_object_it_is(ours_alone):
    async def work(sessions):
        async with sessions() as session:
            rows = [{"tenant": "acme", "id": str(n), "phone": f"+{n}"} for n in range(3)]
            encrypted = await ours.encrypt_rows(session, ours_alone.User, rows)
            encrypted[2]["phone"] = encrypted[0]["phone"]
            await session.execute(insert(ours_alone.User), encrypted)
            users = (await session.scalars(select(ours_alone.User).order_by(ours_alone.User.id))).all()
            with pytest.raises(AuthenticationError) as caught:
                await ours.decrypt_all(session, users)
            assert caught.value.index == 2

    running(ours_alone, work)


@pytest.mark.parametrize("kind", ("class", "maker of a class", "scoped", "session"))
def test_every_kind_of_asyncio_session_can_be_bound(ours_alone, kind):
    """Without binding the sessions of others."""
    cipher = ours_alone.cipher

    class Own(AsyncSession):
        pass

    async def work():
        engine = create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool)
        async with engine.begin() as connection:
            await connection.run_sync(ours_alone.Base.metadata.create_all)
        maker = async_sessionmaker(engine, class_=Own)
        sessions = async_scoped_session(maker, scopefunc=asyncio.current_task) if kind == "scoped" else maker
        made = sessions()
        target = {"class": Own, "maker of a class": maker, "scoped": sessions, "session": made}[kind]
        ours.bind(target, write=cipher, read=cipher)
        session = made if kind == "session" else maker()
        used = session if kind != "scoped" else async_scoped_session(maker, scopefunc=lambda: 1)
        used.add(ours_alone.User(id="1", tenant="acme", phone="+1"))
        await used.commit()
        user = await used.get(ours_alone.User, "1")
        await ours.decrypt_all(used, [user])
        assert user.phone == "+1"
        await used.close()
        async with AsyncSession(engine) as other:
            other.add(ours_alone.User(id="2", tenant="acme", phone="+1"))
            with pytest.raises(RoleError, match="bind"):
                await other.commit()
        if kind == "scoped":
            await made.close()
        await engine.dispose()

    asyncio.run(work())


def test_a_cipher_of_asyncio_is_refused_by_a_session_that_cannot_await(ours_alone):
    """At its first use."""
    cipher = aio.EnvelopeCipher.from_uri("fake:app")
    with ours_alone.sessions(write=cipher)() as session:
        session.add(ours_alone.User(tenant="acme", phone="+1"))
        with pytest.raises(EncryptedColumnError, match=r"kmsbridge\.aio"):
            session.flush()
    asyncio.run(cipher.close())


def test_an_ordinary_session_in_a_coroutine_does_not_decrypt_by_attribute(ours_alone):
    """It would block the event loop as well."""
    row_id = ours_alone.add()

    async def work():
        with ours_alone.Session() as session:
            user = session.get(ours_alone.User, row_id)
            with pytest.raises(EncryptedColumnError, match="decrypt_all"):
                print(user.phone)
            ours.decrypt_all(session, [user], "phone")
            assert user.phone == "+1 555 0100"

    assert issubclass(ours_alone.Session.class_, Session)
    asyncio.run(work())


WITHOUT_GREENLET = """
import sys
sys.modules["greenlet"] = None
from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from kmsbridge import EnvelopeCipher
from kmsbridge.integrations.sqlalchemy import bind, decrypt_all, encrypted_text

class Base(DeclarativeBase):
    pass

class User(Base):
    __tablename__ = "users"
    id: Mapped[str] = mapped_column(primary_key=True)
    phone: Mapped[str] = encrypted_text("users.phone")

engine = create_engine("sqlite://")
Base.metadata.create_all(engine)
with EnvelopeCipher.from_uri("memory:x") as cipher, Session(engine) as session:
    bind(session, write=cipher, read=cipher)
    session.add(User(id="1", phone="+1 555 0100"))
    session.commit()
    session.expire_all()
    user = session.get(User, "1")
    decrypt_all(session, [user])
    print(user.phone)
"""


def test_sessions_that_are_not_for_asyncio_need_no_greenlet():
    """SQLAlchemy installs it with its extra for asyncio only."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_GREENLET], capture_output=True, text=True, check=False
    )
    assert done.stdout == "+1 555 0100\n", done.stderr
