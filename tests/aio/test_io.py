"""Files and streams for asyncio."""

import asyncio
import io
import os
import socket
import threading

import pytest

from kmsbridge import AuthenticationError, ConfigError, MalformedMessage, aio
from tests.support import PATIENCE

PLAIN = os.urandom(300_000)
CONTEXT = {"tenant": "acme"}


@pytest.fixture
def cipher(service):
    return aio.EnvelopeCipher.from_uri("fake:app")


async def connection():
    """Two ends of a socket, each a reader and a writer."""
    one, two = socket.socketpair()
    return await asyncio.open_connection(sock=one), await asyncio.open_connection(sock=two)


async def feed(writer, data):
    writer.write(data)
    await writer.drain()
    writer.write_eof()


async def through(operation, data):
    """What comes out of `operation(reader, writer)` when `data` goes in, through sockets."""
    (_, feed_writer), (reader, back) = await connection()
    (out_reader, out_back), (_, writer) = await connection()

    async def run():
        await operation(reader, writer)
        writer.write_eof()

    try:
        _, _, result = await asyncio.wait_for(
            asyncio.gather(feed(feed_writer, data), run(), out_reader.read()), PATIENCE
        )
        return result
    finally:
        for each in (feed_writer, back, out_back, writer):
            each.close()


def test_streams_go_through_sockets_and_back(cipher):
    """asyncio's own readers and writers, with their short reads."""

    async def main():
        sealed = await through(lambda r, w: cipher.encrypt_stream(r, w, aad=b"1"), PLAIN)
        assert await through(lambda r, w: cipher.decrypt_stream(r, w, aad=b"1"), sealed) == PLAIN
        assert await cipher.decrypt(sealed, aad=b"1") == PLAIN

    asyncio.run(main())


@pytest.mark.parametrize("size", (0, 1, 16_385, 65_536))
def test_a_compact_message_goes_through_sockets(cipher, size):
    """As what `encrypt` gave, it is decrypted by `decrypt_stream`."""

    async def main():
        message = await cipher.encrypt(PLAIN[:size], aad=b"1")
        assert await through(lambda r, w: cipher.decrypt_stream(r, w, aad=b"1"), message) == PLAIN[:size]

    asyncio.run(main())


class Collector:
    """A writer that keeps what it gets."""

    def __init__(self):
        self.data = bytearray()

    def write(self, data):
        self.data += data

    async def drain(self):
        await asyncio.sleep(0)


class Awaited(Collector):
    """A writer without `drain` whose `write` is awaited, and gives what `answer` says of the length."""

    drain = None

    def __init__(self, answer=lambda length: None):
        super().__init__()
        self.answer = answer

    async def write(self, data):
        await asyncio.sleep(0)
        answer = self.answer(len(data))
        self.data += data[: answer if type(answer) is int and answer > 0 else len(data)]
        return answer


class Plain(Collector):
    """One whose `write` is not awaited, without `drain`."""

    drain = None


ANSWERS = {
    "None": lambda length: None,
    "a count": lambda length: length,
    "a short count": lambda length: min(length, 1000),
    "True": lambda length: True,
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_a_write_that_is_to_be_awaited_is_awaited(cipher, answer):
    """And what it did not take is offered again."""

    async def main():
        sealed, opened = Awaited(answer), Awaited(answer)
        await cipher.encrypt_stream(reader_of(PLAIN), sealed)
        await cipher.decrypt_stream(reader_of(bytes(sealed.data)), opened)
        assert opened.data == PLAIN

    asyncio.run(main())


def test_a_writer_needs_no_drain(cipher):
    """One that takes everything at once has none."""

    async def main():
        sealed = Plain()
        await cipher.encrypt_stream(reader_of(PLAIN), sealed)
        assert await cipher.decrypt(bytes(sealed.data)) == PLAIN

    asyncio.run(main())


@pytest.mark.parametrize("answer", (0, False, -1, 10**9, "1"), ids=repr)
def test_a_writer_that_gives_no_count_is_told_whose_fault_it_is(cipher, answer):
    """Awaited or not."""

    async def main():
        with pytest.raises((OSError, TypeError), match="the writer"):
            await cipher.encrypt_stream(reader_of(PLAIN), Awaited(lambda length: answer))

    asyncio.run(main())


class Answering:
    """A reader that gives one thing when it is awaited."""

    def __init__(self, answer):
        self.answer = answer

    async def read(self, size):
        return self.answer(size) if callable(self.answer) else self.answer


@pytest.mark.parametrize(
    ("reader", "text"),
    (
        (io.BytesIO(b"x"), "not to be awaited"),
        (Answering("text"), "text"),
        (Answering(None), "NoneType"),
        (Answering(lambda size: bytes(size + 1)), "must not return more"),
    ),
    ids=("a plain file", "text", "None", "too much"),
)
def test_a_reader_that_gives_no_bytes_is_told_whose_fault_it_is(cipher, reader, text):
    """With what it should give, or where it belongs."""

    async def main():
        for operation in (cipher.encrypt_stream, cipher.decrypt_stream):
            with pytest.raises((TypeError, ValueError), match=f"the reader .*{text}"):
                await operation(reader, Collector())

    asyncio.run(main())


@pytest.mark.parametrize("name", ("encrypt_stream", "decrypt_stream"))
def test_a_stream_in_progress_ends_when_its_cipher_is_closed(cipher, name):
    """`ClosedError` at its next step."""
    from kmsbridge import ClosedError

    class Closing(Collector):
        async def drain(self):
            await cipher.close()

    async def main():
        data = PLAIN if name == "encrypt_stream" else await cipher.encrypt(PLAIN)
        with pytest.raises(ClosedError):
            await getattr(cipher, name)(reader_of(data), Closing())

    asyncio.run(main())


def test_a_reader_of_a_closed_cipher_raises_closed_error(cipher, message):
    """At every use, though it has the chunk."""
    from kmsbridge import ClosedError

    async def main():
        reader = await cipher.open(io.BytesIO(message), context=CONTEXT)
        await reader.read(1)
        await cipher.close()
        for use in (lambda: reader.read(1), lambda: reader.read_at(0, 1)):
            with pytest.raises(ClosedError):
                await use()
        await reader.close()

    asyncio.run(main())


def reader_of(data):
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    return reader


@pytest.mark.parametrize("cut", (0, 5, 60, 200, 50_000, -16, -1), ids="cut at {}".format)
def test_a_stream_cut_short_is_refused(cipher, cut):
    """What was written before is verified; that the end is missing is told."""

    async def main():
        whole, collector = Collector(), Collector()
        await cipher.encrypt_stream(reader_of(PLAIN), whole)
        with pytest.raises((AuthenticationError, MalformedMessage)):
            await cipher.decrypt_stream(reader_of(bytes(whole.data[:cut])), collector)
        assert PLAIN.startswith(collector.data)

    asyncio.run(main())


@pytest.mark.parametrize("change", ("cut", "appended", "changed", "aad", "context"))
def test_nothing_of_a_compact_message_is_written_before_all_of_it_is_verified(cipher, change):
    """It is one piece; each refusal leaves the writer with nothing."""

    async def main():
        whole = await cipher.encrypt(PLAIN[:65_536], context=CONTEXT, aad=b"1")
        changed = whole[:-1] + bytes((whole[-1] ^ 1,))
        given = {"cut": whole[:-1], "appended": whole + b"x", "changed": changed}.get(change, whole)
        context = {"tenant": "other"} if change == "context" else CONTEXT
        aad = b"2" if change == "aad" else b"1"
        collector = Collector()
        with pytest.raises((AuthenticationError, MalformedMessage)):
            await cipher.decrypt_stream(reader_of(given), collector, context=context, aad=aad)
        assert not collector.data

    asyncio.run(main())


def test_a_direct_message_goes_through_decrypt_stream(cipher):
    """It has no body, and nothing may follow."""

    async def main():
        async with aio.EnvelopeCipher.from_uri("fake:app", direct=True) as direct:
            message = await direct.encrypt(b"x")
            with pytest.raises(ConfigError, match="direct"):
                await direct.encrypt_stream(reader_of(b"x"), Collector())
        collector = Collector()
        await cipher.decrypt_stream(reader_of(message), collector)
        assert collector.data == b"x"
        with pytest.raises(MalformedMessage):
            await cipher.decrypt_stream(reader_of(message + b"y"), Collector())

    asyncio.run(main())


@pytest.fixture
def paths(tmp_path):
    """A plaintext file and two paths where nothing is."""
    (tmp_path / "plain").write_bytes(PLAIN)
    return tmp_path / "plain", tmp_path / "sealed", tmp_path / "opened"


def test_files_go_there_and_back_with_progress_on_the_loop(cipher, paths):
    """`progress` is called on the loop's thread, and the last call has the whole length."""
    plain, sealed, opened = paths
    calls = []

    async def main():
        thread = threading.get_ident()
        note = lambda done: calls.append((done, threading.get_ident() == thread))  # noqa: E731
        await cipher.encrypt_file(plain, sealed, progress=note)
        await cipher.decrypt_file(sealed, opened)
        await asyncio.sleep(0)

    asyncio.run(main())
    assert opened.read_bytes() == PLAIN
    assert calls[-1] == (len(PLAIN), True)


@pytest.mark.parametrize("operation", ("encrypt_file", "decrypt_file"))
def test_a_cancelled_file_operation_leaves_no_target_and_no_temporary_file(
    monkeypatch, cipher, paths, operation
):
    """Cancelled in its middle, it stops and cleans up before the task ends."""
    from kmsbridge.cipher import files

    plain, sealed, opened = paths
    source, target = (plain, opened) if operation == "encrypt_file" else (sealed, opened)
    in_the_middle, go_on = threading.Event(), threading.Event()
    write = files.write_all

    def slow(writer, data):
        in_the_middle.set()
        go_on.wait(PATIENCE)
        write(writer, data)

    async def main():
        await cipher.encrypt_file(plain, sealed)
        before = set(plain.parent.iterdir())
        monkeypatch.setattr(files, "write_all", slow)
        task = asyncio.ensure_future(getattr(cipher, operation)(source, target))
        await asyncio.to_thread(in_the_middle.wait, PATIENCE)
        task.cancel()
        await asyncio.sleep(0)
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, PATIENCE)
        assert set(plain.parent.iterdir()) == before

    asyncio.run(main())


@pytest.mark.parametrize("times", (1, 3), ids="cancelled {} times".format)
@pytest.mark.parametrize("operation", ("encrypt_file", "decrypt_file"))
def test_a_cancelled_task_ends_when_no_thread_works_for_it(monkeypatch, cipher, tmp_path, operation, times):
    """While several threads are in the middle of a large file; however impatient the one who cancels is."""
    from kmsbridge.cipher import files, parallel

    monkeypatch.setattr(parallel, "processors", lambda: 4)
    monkeypatch.setattr(parallel, "PARTS_EACH", 1)
    plain, sealed, target = tmp_path / "plain", tmp_path / "sealed", tmp_path / "target"
    with open(plain, "wb") as file:
        file.truncate(40 * files.STEP)
    in_the_middle, go_on, at_work = threading.Semaphore(0), threading.Event(), []
    read = files.read_at

    def slow(reader, buffer, offset):
        at_work.append(offset)
        in_the_middle.release()
        go_on.wait(PATIENCE)
        count = read(reader, buffer, offset)
        at_work.remove(offset)
        return count

    async def main():
        await cipher.encrypt_file(plain, sealed)
        before = set(tmp_path.iterdir())
        monkeypatch.setattr(files, "read_at", slow)
        source = plain if operation == "encrypt_file" else sealed
        task = asyncio.ensure_future(getattr(cipher, operation)(source, target))
        for _ in range(4):
            assert await asyncio.to_thread(in_the_middle.acquire, timeout=PATIENCE)
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(0.01)
            assert not task.done()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert at_work == []
        assert set(tmp_path.iterdir()) == before

    asyncio.run(asyncio.wait_for(main(), 2 * PATIENCE))


def test_a_reader_is_shared_by_tasks_that_take_turns(cipher, paths):
    """`read_at` of a hundred tasks gives each its own bytes."""
    plain, sealed, _ = paths

    async def main():
        await cipher.encrypt_file(plain, sealed)
        async with await cipher.open(sealed) as reader:
            assert reader.size == len(PLAIN)
            offsets = range(0, len(PLAIN), 3001)
            parts = await asyncio.gather(*(reader.read_at(offset, 100) for offset in offsets))
            assert parts == [PLAIN[offset : offset + 100] for offset in offsets]
            reader.seek(-10, os.SEEK_END)
            assert await reader.read() == PLAIN[-10:]
            assert reader.tell() == len(PLAIN)
        with pytest.raises(ValueError, match="closed"):
            await reader.read()

    asyncio.run(main())


def test_a_file_that_was_passed_in_is_left_open(cipher, message):
    """The caller opened it, the caller closes it."""

    async def main():
        file = io.BytesIO(message)
        async with await cipher.open(file, context=CONTEXT) as reader:
            assert await reader.read() == b"x"
        assert not file.closed

    asyncio.run(main())


def test_rewrapping_a_file_goes_on_a_thread(service, cipher, paths):
    """The file is for the new version, and opens as before."""
    plain, sealed, opened = paths

    async def main():
        await cipher.encrypt_file(plain, sealed)
        service.app.rotate()
        assert await cipher.needs_rewrap(sealed.read_bytes())
        await cipher.rewrap_file(sealed)
        assert not await cipher.needs_rewrap(sealed.read_bytes())
        await cipher.decrypt_file(sealed, opened)

    asyncio.run(main())
    assert opened.read_bytes() == PLAIN
