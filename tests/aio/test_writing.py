"""Files that encrypt what is written to them, and messages that are read while they are encrypted, with `await`."""

import asyncio
import errno
import io
import os
import threading

import pytest

from kmsbridge import AuthenticationError, ClosedError, ConfigError, MalformedMessage, aio, inspect_file
from tests.support import PATIENCE

PLAIN = os.urandom(200_000)


@pytest.fixture
def cipher(service):
    return aio.EnvelopeCipher.from_uri("fake:app")


class Collector:
    """An asynchronous writer that keeps what it gets, and fails after `room` bytes."""

    def __init__(self, room=10**9, hang=False):
        self.data, self.room, self.hang = bytearray(), room, hang

    def write(self, data):
        self.data += data

    async def drain(self):
        if len(self.data) >= self.room:
            if self.hang:
                await asyncio.sleep(PATIENCE)
            raise ConnectionResetError(errno.ECONNRESET, "reset")
        await asyncio.sleep(0)


class Awaited(Collector):
    """Its `write` is awaited, and takes a part."""

    drain = None

    async def write(self, data):
        part = data[:10_000]
        self.data += part
        await Collector.drain(self)
        return len(part)


async def refuses(cipher, data):
    with pytest.raises((AuthenticationError, MalformedMessage)):
        await cipher.decrypt(bytes(data))


@pytest.mark.parametrize("pieces", (1, 3, 500))
def test_a_path_appears_whole_at_the_end_of_the_block(cipher, tmp_path, pieces):
    """With the header's room, as `encrypt_file` leaves it."""

    async def main():
        async with await cipher.create(tmp_path / "target", context={"a": "b"}, aad=b"1") as file:
            for start in range(0, len(PLAIN), len(PLAIN) // pieces):
                part = PLAIN[start : start + len(PLAIN) // pieces]
                assert await file.write(part) == len(part)
            assert file.tell() == len(PLAIN)
            await file.flush()
            assert not (tmp_path / "target").exists()
        message = (tmp_path / "target").read_bytes()
        assert await cipher.decrypt(message, context={"a": "b"}, aad=b"1") == PLAIN

    asyncio.run(main())
    assert inspect_file(tmp_path / "target").padding >= 512
    assert os.listdir(tmp_path) == ["target"]


@pytest.mark.parametrize("kind", (Collector, Awaited, io.BytesIO))
def test_a_writer_is_written_as_it_comes(cipher, kind):
    """One that is awaited or not, and a file; each is left open."""
    writer = kind()

    def written():
        return writer.getvalue() if kind is io.BytesIO else bytes(writer.data)

    async def main():
        file = await cipher.create(writer)
        assert len(written()) > 0
        await file.write(PLAIN[:20_000])
        assert len(written()) > 16_384
        await file.write(PLAIN[20_000:])
        await file.close()
        await file.close()
        assert await cipher.decrypt(written()) == PLAIN
        with pytest.raises(ValueError, match="closed"):
            await file.write(b"x")

    asyncio.run(main())


@pytest.mark.parametrize("kind", ("path", "writer"))
@pytest.mark.parametrize("way", ("exception", "abandon", "cancel"))
def test_a_block_that_fails_leaves_no_message(cipher, tmp_path, kind, way):
    """An exception, `abandon`, and a task that is cancelled."""
    writer = Collector()

    async def main():
        began = asyncio.Event()

        async def work():
            async with await cipher.create(tmp_path / "target" if kind == "path" else writer) as file:
                await file.write(PLAIN)
                if way == "abandon":
                    await file.abandon()
                    return
                if way == "exception":
                    raise ZeroDivisionError
                began.set()
                await asyncio.sleep(PATIENCE)

        task = asyncio.create_task(work())
        if way == "cancel":
            await asyncio.wait_for(began.wait(), PATIENCE)
            task.cancel()
        result = (await asyncio.gather(task, return_exceptions=True))[0]
        assert (
            type(result)
            is {
                "exception": ZeroDivisionError,
                "cancel": asyncio.CancelledError,
                "abandon": type(None),
            }[way]
        )
        if kind == "writer":
            await refuses(cipher, writer.data)

    asyncio.run(main())
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("hang", (False, True), ids=("fails", "is cancelled"))
def test_after_a_write_that_failed_or_was_cancelled_there_is_no_message(cipher, hang):
    """Nobody knows how much of it was sent: each later use raises, and so does the end."""
    writer = Collector(room=50_000, hang=hang)

    async def main():
        file = await cipher.create(writer)
        with pytest.raises(TimeoutError if hang else ConnectionResetError):
            await asyncio.wait_for(file.write(PLAIN), 0.1 if hang else PATIENCE)
        writer.room = 10**9
        for call in (lambda: file.write(PLAIN), lambda: file.write(b"x"), file.close):
            with pytest.raises(OSError, match="earlier") as caught:
                await call()
            assert caught.value.errno == (errno.EIO if hang else errno.ECONNRESET)
        await refuses(cipher, writer.data)

    asyncio.run(main())


class Slow(io.RawIOBase):
    """A file whose writes wait until they are let go on."""

    def __init__(self):
        super().__init__()
        self.data, self.writing, self.go_on = bytearray(), threading.Event(), threading.Event()
        self.go_on.set()

    def writable(self):
        return True

    def write(self, data):
        self.writing.set()
        assert self.go_on.wait(PATIENCE)
        self.data += data
        return len(data)


def test_a_cancelled_write_to_a_file_is_waited_for(cipher):
    """So that nothing is closed while a thread writes to it; and the message is never completed."""
    file = Slow()

    async def main():
        writer = await cipher.create(file)
        file.writing.clear()
        file.go_on.clear()
        task = asyncio.create_task(writer.write(PLAIN))
        await asyncio.to_thread(file.writing.wait, PATIENCE)
        for _ in range(2):
            task.cancel()
            await asyncio.sleep(0.01)
        assert not task.done()
        file.go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(OSError, match="earlier"):
            await writer.close()
        await refuses(cipher, file.data)

    asyncio.run(main())


def test_tasks_take_turns(cipher, tmp_path):
    """Each write is whole."""

    async def main():
        async with await cipher.create(tmp_path / "target") as file:
            await asyncio.gather(*(file.write(b"%09999d\n" % n) for n in range(30)))
        lines = (await cipher.decrypt((tmp_path / "target").read_bytes())).splitlines()
        assert sorted(lines) == [b"%09999d" % n for n in range(30)]

    asyncio.run(main())


def test_what_cannot_be_written_to_is_told(service, cipher, tmp_path):
    """And in direct mode there are no files."""

    async def main():
        with pytest.raises(TypeError, match="path or a writable"):
            await cipher.create(7)
        with pytest.raises(OSError, match="none"):
            await cipher.create(tmp_path / "none" / "target")
        async with await cipher.create(tmp_path / "target") as file:
            with pytest.raises(TypeError):
                await file.write("text")
        async with aio.EnvelopeCipher.from_uri("fake:app", direct=True) as direct:
            for call in (direct.create, direct.encrypting):
                with pytest.raises(ConfigError, match="direct"):
                    await call(io.BytesIO())

    asyncio.run(main())


def stream_of(data):
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    return reader


class Promises:
    """A reader whose `read` is no coroutine function, and gives something to await."""

    def __init__(self, data):
        self.file = io.BytesIO(data)

    def read(self, n=-1):
        future = asyncio.get_running_loop().create_future()
        future.set_result(self.file.read(min(n, 1000)))
        return future


@pytest.mark.parametrize("source", (stream_of, io.BytesIO, Promises), ids=("stream", "file", "promises"))
@pytest.mark.parametrize("how", ("iterated", "read", "read in parts"))
@pytest.mark.parametrize("size", (0, 1, 65_536, 200_000))
def test_what_is_read_is_the_message(cipher, source, how, size):
    """From whatever source, and however it is read."""

    async def main():
        file = await cipher.encrypting(source(PLAIN[:size]), context={"a": "b"}, aad=b"1")
        parts = []
        if how == "iterated":
            parts = [block async for block in file]
        elif how == "read":
            parts = [await file.read()]
        else:
            while part := await file.read(7000):
                parts.append(part)
            assert {len(part) for part in parts[:-1]} <= {7000}
        assert await file.read() == await file.read(1) == b""
        assert await cipher.decrypt(b"".join(parts), context={"a": "b"}, aad=b"1") == PLAIN[:size]

    asyncio.run(main())


def test_a_file_is_read_on_a_thread(cipher):
    """The event loop goes on while it waits."""
    threads = set()

    class File(io.BytesIO):
        def readinto(self, buffer):
            threads.add(threading.current_thread())
            return super().readinto(buffer)

    async def main():
        await (await cipher.encrypting(File(PLAIN))).read()

    asyncio.run(main())
    assert threads
    assert threading.main_thread() not in threads


class Breaking:
    """Raises once, and then ends."""

    def __init__(self, hang):
        self.left, self.hang = 2, hang

    async def read(self, n=-1):
        self.left -= 1
        if self.left == -1:
            if self.hang:
                await asyncio.sleep(PATIENCE)
            raise ConnectionResetError(errno.ECONNRESET, "reset")
        return b"x" * n if self.left >= 0 else b""


@pytest.mark.parametrize("hang", (False, True), ids=("fails", "is cancelled"))
def test_after_a_source_that_raised_each_read_raises(cipher, hang):
    """Also after one that was cancelled."""

    async def main():
        file, parts = await cipher.encrypting(Breaking(hang)), []

        async def read_all():
            async for block in file:
                parts.append(block)  # noqa: PERF401 - kept when it fails

        with pytest.raises(TimeoutError if hang else ConnectionResetError):
            await asyncio.wait_for(read_all(), 0.1 if hang else PATIENCE)
        for _ in range(2):
            with pytest.raises(OSError, match="earlier"):
                await file.read(1)
            with pytest.raises(OSError, match="earlier"):
                await anext(file)
        await refuses(cipher, b"".join(parts))

    asyncio.run(main())


@pytest.mark.parametrize("what", ("cipher", "file"))
def test_once_closed_nothing_is_read(service, what):
    """`ClosedError` of the cipher, `ValueError` of the file; the source stays open."""

    async def main():
        cipher, source = aio.EnvelopeCipher.from_uri("fake:app"), io.BytesIO(PLAIN)
        file = await cipher.encrypting(source)
        await file.read(100)
        await (cipher if what == "cipher" else file).close()
        for call in (file.read, lambda: anext(file)):
            with pytest.raises(ClosedError if what == "cipher" else ValueError):
                await call()
        assert not source.closed
        await cipher.close()

    asyncio.run(main())


def test_what_is_neither_a_file_nor_awaited_is_told(cipher):
    """`TypeError` that names the other classes."""

    class Duck:
        read = staticmethod(lambda n=-1: b"x")

    async def main():
        with pytest.raises(TypeError, match="not to be awaited"):
            await (await cipher.encrypting(Duck())).read()

    asyncio.run(main())
