"""Tasks that share one cipher: one call, no thread for what is at hand, and no harm from a cancelled one."""

import asyncio
import itertools
import threading

import pytest

from kmsbridge import AuthenticationError, ClosedError, KmsAccessDenied, aio
from kmsbridge.driver import ErrorKind
from tests.support import PATIENCE, crowd

TASKS = 1000
CONTEXT = {"tenant": "acme"}


@pytest.fixture
def cipher(service):
    return aio.EnvelopeCipher.from_uri("fake:app")


class Interrupt(BaseException):
    """As Ctrl-C, but one that the event loop does not end for."""


async def together(*operations):
    return await asyncio.wait_for(asyncio.gather(*operations, return_exceptions=True), PATIENCE)


def test_a_thousand_tasks_on_a_cold_cache_make_one_wrap(service, cipher):
    """Each gets its message; a thousand messages, one data key."""

    async def main():
        return await together(*(cipher.encrypt(b"x", context=CONTEXT) for _ in range(TASKS)))

    messages = asyncio.run(main())
    assert service.app.calls == {"wrap": 1}
    assert len(set(messages)) == TASKS


def test_a_thousand_tasks_on_a_cold_cache_make_one_unwrap(service, cipher, message):
    """The same on the way back."""

    async def main():
        return await together(*(cipher.decrypt(message, context=CONTEXT) for _ in range(TASKS)))

    assert asyncio.run(main()) == [b"x"] * TASKS
    assert service.app.calls == {"wrap": 1, "unwrap": 1}


def test_what_is_at_hand_takes_no_thread(monkeypatch, cipher, message):
    """With the data key cached, every kind of call is done where it is made."""

    async def main():
        await cipher.encrypt(b"x", context=CONTEXT)
        await cipher.decrypt(message, context=CONTEXT)
        own = await cipher.encrypt(b"y", context=CONTEXT)
        await cipher.decrypt(own, context=CONTEXT)

        def forbidden(*arguments, **options):
            raise AssertionError("hopped to a thread")

        monkeypatch.setattr(asyncio, "to_thread", forbidden)
        monkeypatch.setattr(asyncio.get_running_loop(), "run_in_executor", forbidden)
        assert await cipher.decrypt(message, context=CONTEXT) == b"x"
        again = await cipher.encrypt(bytes(2**20), context=CONTEXT)
        assert len(await cipher.decrypt(await cipher.encrypt(b"y", context=CONTEXT), context=CONTEXT)) == 1
        text = await cipher.encrypt_text("text", context=CONTEXT)
        assert await cipher.decrypt_text(text, context=CONTEXT) == "text"
        return again

    assert asyncio.run(main())


def test_a_call_to_the_service_does_not_block_the_loop(service, cipher):
    """While a wrap hangs, other tasks run."""
    go_on = threading.Event()
    service.before = lambda operation: go_on.wait(PATIENCE)

    async def main():
        slow = asyncio.ensure_future(cipher.encrypt(b"x"))
        await asyncio.sleep(0)
        go_on.set()  # reached only if the loop is free
        return await asyncio.wait_for(slow, PATIENCE)

    assert asyncio.run(main())


def test_all_who_waited_get_the_error_each_its_own(service, cipher):
    """One refused call, as many errors as tasks."""
    service.app.fail("wrap", ErrorKind.ACCESS_DENIED, times=1)
    go_on = threading.Event()
    service.before = lambda operation: go_on.wait(PATIENCE)

    async def main():
        tasks = [asyncio.ensure_future(cipher.encrypt(b"x")) for _ in range(100)]
        await asyncio.sleep(0)
        go_on.set()
        return await together(*tasks)

    errors = asyncio.run(main())
    assert {type(error) for error in errors} == {KmsAccessDenied}
    assert len({id(error) for error in errors}) == 100


def test_each_of_many_refusals_is_audited(cipher, message, caplog):
    """50 tasks that share one failed unwrap are 50 refusals: none hides behind another."""

    async def main():
        caplog.set_level("WARNING", "kmsbridge.audit")
        wrong = (cipher.decrypt(message, context={"tenant": "other"}) for _ in range(50))
        return await asyncio.gather(*wrong, return_exceptions=True)

    errors = asyncio.run(main())
    operations = [record.kmsbridge["operation"] for record in caplog.records]
    assert [type(error) for error in errors] == [AuthenticationError] * 50
    assert operations.count("refusal") == 50
    assert operations.count("unwrap") < 50


def test_a_cancelled_leader_does_not_poison_the_others(service, cipher):
    """The call it began goes on for the tasks that wait for it."""
    go_on = threading.Event()
    service.before = lambda operation: go_on.wait(PATIENCE)

    async def main():
        leader = asyncio.ensure_future(cipher.encrypt(b"x"))
        await asyncio.sleep(0)
        others = [asyncio.ensure_future(cipher.encrypt(b"x")) for _ in range(50)]
        await asyncio.sleep(0)
        leader.cancel()
        await asyncio.sleep(0)
        assert leader.cancelled()
        go_on.set()
        return await together(*others)

    assert all(isinstance(message, bytes) for message in asyncio.run(main()))
    assert service.app.calls == {"wrap": 1}


def test_cancelled_followers_do_no_harm(service, cipher):
    """The leader, and those that stay, get their messages."""
    go_on = threading.Event()
    service.before = lambda operation: go_on.wait(PATIENCE)

    async def main():
        tasks = [asyncio.ensure_future(cipher.encrypt(b"x")) for _ in range(10)]
        await asyncio.sleep(0)
        for task in tasks[1::2]:
            task.cancel()
        await asyncio.sleep(0)
        go_on.set()
        return await together(*tasks[::2])

    assert all(isinstance(message, bytes) for message in asyncio.run(main()))


def test_a_leader_interrupted_on_its_thread_does_not_poison_the_others(service, cipher):
    """It alone is told; of the others one begins another call."""
    first = itertools.count()

    def interrupted_once(operation):
        if next(first) == 0:
            raise Interrupt

    service.before = interrupted_once

    async def main():
        return await together(*(cipher.encrypt(b"x") for _ in range(10)))

    results = asyncio.run(main())
    assert [type(result) for result in results] == [Interrupt] + [bytes] * 9


def test_an_error_that_is_no_refusal_ends_every_task(monkeypatch, cipher):
    """A load that always fails in a way nobody foresaw is raised to each, not tried for ever."""

    def broken(*arguments):
        raise ZeroDivisionError

    monkeypatch.setattr(cipher._encryption.core.data_keys, "_make", broken)

    async def main():
        return await together(*(cipher.encrypt(b"x") for _ in range(10)))

    assert {type(result) for result in asyncio.run(main())} == {ZeroDivisionError}


def test_one_cipher_serves_two_event_loops_at_once(monkeypatch, service, cipher):
    """A wrap that a task of one loop began is awaited by tasks of another."""
    everyone = crowd(monkeypatch, cipher._encryption.core.data_keys.flights, 2)
    service.before = lambda operation: everyone.wait(PATIENCE)
    messages = []

    def run():
        messages.append(asyncio.run(cipher.encrypt(b"x")))

    threads = [threading.Thread(target=run, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert len(set(messages)) == 2
    assert service.app.calls == {"wrap": 1}


def test_threads_and_tasks_share_a_call(monkeypatch, service, cipher):
    """The synchronous core waits for the same wrap."""
    everyone = crowd(monkeypatch, cipher._encryption.core.data_keys.flights, 2)
    service.before = lambda operation: everyone.wait(PATIENCE)

    async def main():
        return await together(
            cipher.encrypt(b"x"), asyncio.to_thread(cipher._encryption.core.encrypt, b"x", None, b"")
        )

    assert all(isinstance(message, bytes) for message in asyncio.run(main()))
    assert service.app.calls == {"wrap": 1}


def test_a_loop_that_ended_while_waiting_harms_nobody(service, cipher):
    """A load that was begun in a loop that is gone still ends, and the next loop goes on."""
    go_on, calling = threading.Event(), threading.Event()

    def hang(operation):
        calling.set()
        go_on.wait(PATIENCE)

    service.before = hang

    async def give_up():
        task = asyncio.ensure_future(cipher.encrypt(b"x"))
        await asyncio.to_thread(calling.wait, PATIENCE)
        task.cancel()
        go_on.set()

    asyncio.run(give_up())
    assert asyncio.run(cipher.encrypt(b"x"))


def test_what_is_at_hand_is_refused_without_a_thread_or_a_call(service, cipher, message):
    """A changed body, aad or context: the same error warm as cold, and the good message opens after it."""

    async def main():
        changed = message[:-1] + bytes((message[-1] ^ 1,))
        for _ in range(2):
            for attempt, options in ((changed, {}), (message, {"aad": b"other"})):
                with pytest.raises(AuthenticationError):
                    await cipher.decrypt(attempt, context=CONTEXT, **options)
            with pytest.raises(AuthenticationError):
                await cipher.decrypt(message, context={"tenant": "other"})
            assert await cipher.decrypt(message, context=CONTEXT) == b"x"

    asyncio.run(main())
    assert service.app.calls["unwrap"] == 2


CALLS = {
    "encrypt": lambda cipher, path: cipher.encrypt(b"x"),
    "encrypt_text": lambda cipher, path: cipher.encrypt_text("x"),
    "encrypt_many": lambda cipher, path: cipher.encrypt_many([b"x"]),
    "encrypt_file": lambda cipher, path: cipher.encrypt_file(path, path),
    "decrypt": lambda cipher, path: cipher.decrypt(path.read_bytes()),
    "decrypt_many": lambda cipher, path: cipher.decrypt_many([path.read_bytes()]),
    "decrypt_file": lambda cipher, path: cipher.decrypt_file(path, path),
    "open": lambda cipher, path: cipher.open(path),
    "rewrap": lambda cipher, path: cipher.rewrap(path.read_bytes()),
    "rewrap_file": lambda cipher, path: cipher.rewrap_file(path),
    "needs_rewrap": lambda cipher, path: cipher.needs_rewrap(path.read_bytes()),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_use_after_close_raises(tmp_path, cipher, message, call):
    """`ClosedError`, whatever is asked."""
    path = tmp_path / "message"
    path.write_bytes(message)

    async def main():
        async with cipher:
            await cipher.encrypt(b"x")
            await cipher.decrypt(message, context=CONTEXT)
            await cipher.needs_rewrap(message)
        with pytest.raises(ClosedError, match="open a new"):
            await call(cipher, path)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("call", "words"),
    (
        (lambda cipher: cipher.encrypt("text"), "encrypt_text"),
        (lambda cipher: cipher.decrypt("text"), "decrypt_text"),
        (lambda cipher: cipher.encrypt(b"x", aad="text"), "aad must be bytes-like"),
        (lambda cipher: cipher.encrypt_text(b"bytes"), "text must be str"),
        (lambda cipher: cipher.encrypt_many([b"x"], aads=[]), "aads"),
    ),
    ids=("str to encrypt", "str to decrypt", "str as aad", "bytes as text", "too few aads"),
)
def test_wrong_types_are_told(cipher, call, words):
    """A `TypeError` that names what to use instead."""

    async def main():
        with pytest.raises(TypeError, match=words):
            await call(cipher)

    asyncio.run(main())


def test_every_other_operation_gives_what_the_synchronous_one_does(cipher, message):
    """Large payloads, many, direct, rewrap."""

    async def main():
        assert await cipher.decrypt_many([message] * 2, context=CONTEXT) == [b"x"] * 2
        assert await cipher.decrypt(await cipher.rewrap(message, context=CONTEXT), context=CONTEXT) == b"x"
        assert not await cipher.needs_rewrap(message)
        big = bytes(range(256)) * 8192
        assert await cipher.decrypt(await cipher.encrypt(big, aad=b"1"), aad=b"1") == big
        messages = await cipher.encrypt_many([b"a", b"b"], aads=[b"1", b"2"])
        assert await cipher.decrypt_many(messages, aads=[b"1", b"2"]) == [b"a", b"b"]
        assert await cipher.decrypt(await cipher.rewrap(messages[0]), aad=b"1") == b"a"
        assert not await cipher.needs_rewrap(messages[0])
        async with aio.EnvelopeCipher.from_uri("fake:app", direct=True) as direct:
            whole = await direct.encrypt(b"x", aad=b"1")
            assert await cipher.decrypt(whole, aad=b"1") == b"x"
        async with aio.EnvelopeCipher.from_uri("fake:app", data_keys={"max_messages": 1}) as alone:
            assert await alone.decrypt(await alone.encrypt(b"x")) == b"x"

    asyncio.run(main())
