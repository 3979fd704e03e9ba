"""Streams: pipes, sockets, short reads and writes, and readers and writers that are none."""

import gc
import gzip
import http.client
import io
import os
import select
import signal
import socket
import tempfile
import threading
import time

import pytest

from kmsbridge import AuthenticationError, ClosedError, EnvelopeCipher, MalformedMessage
from kmsbridge.inspection import inspect_stream
from tests.support import PATIENCE, Outcome

PLAIN = bytes(n % 253 for n in range(150_000))


class Reluctant(io.RawIOBase):
    """Reads and writes at most `most` bytes at a time."""

    def __init__(self, data=b"", most=1000):
        self.data, self.at, self.most = bytearray(data), 0, most

    def readable(self):
        return True

    def writable(self):
        return True

    def readinto(self, buffer):
        part = self.data[self.at : self.at + min(self.most, len(buffer))]
        buffer[: len(part)] = part
        self.at += len(part)
        return len(part)

    def write(self, data):
        part = bytes(data[: self.most])
        self.data += part
        return len(part)


class OnlyRead:
    """An object with `read` alone, as many libraries give."""

    def __init__(self, data):
        self._file = io.BytesIO(data)

    def read(self, size):
        return self._file.read(size)


class OnlyWrite:
    """An object whose `write` takes everything and says nothing."""

    def __init__(self):
        self.data = b""

    def write(self, data):
        self.data += bytes(data)


READERS = {
    "bytes in memory": io.BytesIO,
    "one byte at a time": lambda data: Reluctant(data, 1 if len(data) < 2000 else 97),
    "a thousand at a time": Reluctant,
    "an object that only reads": OnlyRead,
    "a buffered reader": lambda data: io.BufferedReader(Reluctant(data)),
}


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
@pytest.mark.parametrize("size", (0, 1, 1000, len(PLAIN)))
def test_a_stream_comes_back_whatever_the_pieces(cipher, reader, size):
    """Read and written in the smallest or largest pieces."""
    sealed, opened = Reluctant(most=777), OnlyWrite()
    cipher.encrypt_stream(reader(PLAIN[:size]), sealed, context={"a": "b"}, aad=b"1")
    cipher.decrypt_stream(reader(bytes(sealed.data)), opened, context={"a": "b"}, aad=b"1")
    assert opened.data == PLAIN[:size]
    assert cipher.decrypt(bytes(sealed.data), context={"a": "b"}, aad=b"1") == PLAIN[:size]


def test_pipes_and_sockets_carry_a_stream(cipher):
    """Encrypt into a pipe, decrypt out of it and into a socket."""
    reading, writing = os.pipe()
    one, two = socket.socketpair()

    def seal():
        with os.fdopen(writing, "wb", buffering=0) as writer:
            cipher.encrypt_stream(io.BytesIO(PLAIN), writer)

    def unseal():
        with os.fdopen(reading, "rb", buffering=0) as reader, one, one.makefile("wb") as writer:
            cipher.decrypt_stream(reader, writer)

    outcomes = [Outcome(seal), Outcome(unseal)]
    with two, two.makefile("rb") as file:
        assert file.read() == PLAIN
    assert [outcome.join().error for outcome in outcomes] == [None, None]


def test_nothing_is_read_beyond_the_end_and_nothing_is_closed(cipher):
    """The caller's streams stay the caller's."""
    source, target = io.BytesIO(PLAIN), io.BytesIO()
    cipher.encrypt_stream(source, target)
    assert not source.closed
    assert not target.closed


def nonblocking_pipe():
    """The two ends of a pipe as raw files, neither of which blocks."""
    ends = os.pipe()
    for end in ends:
        os.set_blocking(end, False)
    return os.fdopen(ends[0], "rb", buffering=0), os.fdopen(ends[1], "wb", buffering=0)


def slowly(file, data):
    """Feed `data` to a raw file in small pieces, with a pause before each of the first."""
    view = memoryview(data)
    for number in range(len(view)):
        if not view:
            break
        time.sleep(0.01 if number < 5 else 0)
        select.select([], [file], [], PATIENCE)
        view = view[file.write(view[:9999]) or 0 :]
    file.close()


def drained(file):
    """All that a raw file gives, read late and in small pieces."""
    time.sleep(0.05)
    data = b""
    while select.select([file], [], [], PATIENCE)[0] and (part := file.read(7777)):
        data += part
    return data


@pytest.mark.parametrize("buffered", (False, True), ids=("raw", "buffered"))
def test_streams_that_do_not_block_are_waited_for(cipher, buffered):
    """A pipe whose other end is slow, read and written; nothing is lost, and nobody spins."""
    (source, feeding), (emptying, target) = nonblocking_pipe(), nonblocking_pipe()
    reader = io.BufferedReader(source) if buffered else source
    writer = io.BufferedWriter(target) if buffered else target
    outcomes = [Outcome(lambda: slowly(feeding, PLAIN)), Outcome(lambda: drained(emptying))]

    def seal():
        cipher.encrypt_stream(reader, writer)
        os.set_blocking(target.fileno(), True)
        writer.close()

    with source, emptying:
        assert Outcome(seal).join().error is None
        assert outcomes[0].join().error is None
        assert cipher.decrypt(outcomes[1].join().value) == PLAIN


def test_sockets_that_do_not_block_are_waited_for(cipher):
    """By their `makefile`, both ways."""
    one, two = socket.socketpair()
    one.setblocking(False)
    with one, two, two.makefile("rwb") as peer, one.makefile("rwb", buffering=0) as raw:
        sealing = Outcome(lambda: cipher.encrypt_stream(io.BytesIO(PLAIN * 5), raw))
        sealed = peer.read(len(cipher.encrypt(PLAIN * 5)))
        assert sealing.join().error is None
        target = OnlyWrite()
        opening = Outcome(lambda: cipher.decrypt_stream(raw, target))
        peer.write(sealed)
        peer.flush()
        two.shutdown(socket.SHUT_WR)
        assert opening.join().error is None
        assert target.data == PLAIN * 5


class NeverReady(Reluctant):
    """A raw stream that has nothing, takes nothing, and that nobody can wait for."""

    def readinto(self, buffer):
        return None

    def write(self, data):
        return None


@pytest.mark.parametrize("side", ("reader", "writer"))
def test_a_stream_that_cannot_be_waited_for_is_told(cipher, encrypt, side):
    """`BlockingIOError` that names the side, instead of a stream with a hole."""
    ends = (NeverReady(), io.BytesIO()) if side == "reader" else (io.BytesIO(b"x"), NeverReady())
    for operation in (cipher.encrypt_stream, cipher.decrypt_stream):
        if side == "writer" and operation == cipher.decrypt_stream:
            ends = (io.BytesIO(encrypt(cipher, b"x")), NeverReady())
        with pytest.raises(BlockingIOError, match=side):
            operation(*ends)


class Keeping:
    """A writer that keeps what it is given, and looks at it later."""

    def __init__(self, answer=lambda data: None):
        self.kept, self.answer = [], answer

    def write(self, data):
        self.kept.append(data)
        return self.answer(data)

    @property
    def data(self):
        return b"".join(self.kept)


class KeepingFile(Keeping, io.RawIOBase):
    """The same as a file of a class of its own."""

    def __init__(self):
        io.RawIOBase.__init__(self)
        Keeping.__init__(self, len)


@pytest.mark.parametrize(
    "make",
    (Keeping, KeepingFile, lambda: Keeping(len), lambda: Keeping(lambda data: True)),
    ids=("None", "a raw file", "a count", "True"),
)
def test_a_writer_may_keep_what_it_is_given(cipher, make):
    """It gets bytes of its own, which do not change when the next are written."""
    plain = os.urandom(3 * 2**20 + 5)
    sealed, opened = make(), make()
    cipher.encrypt_stream(io.BytesIO(plain), sealed)
    cipher.decrypt_stream(io.BytesIO(sealed.data), opened)
    assert opened.data == plain
    assert {type(each) for each in sealed.kept + opened.kept} == {bytes}


@pytest.mark.parametrize("most", (1, 1000, 100_000), ids="at most {} at a time".format)
def test_what_a_writer_does_not_take_is_offered_again(cipher, most):
    """A count that is short is no end."""
    sealed = Reluctant(most=most)
    plain = PLAIN[: most * 3000]
    cipher.encrypt_stream(io.BytesIO(plain), sealed)
    assert cipher.decrypt(bytes(sealed.data)) == plain


@pytest.mark.parametrize(
    ("answer", "error"),
    (
        (False, OSError),
        (0, OSError),
        (-1, OSError),
        (10**9, OSError),
        ("17", TypeError),
        (1.0, TypeError),
        (b"", TypeError),
    ),
    ids=repr,
)
def test_a_writer_that_gives_no_count_is_told_whose_fault_it_is(cipher, encrypt, answer, error):
    """By name, with what it should give."""
    message = encrypt(cipher, b"x")
    for operation, source in ((cipher.encrypt_stream, PLAIN), (cipher.decrypt_stream, message)):
        with pytest.raises(error, match=r"the writer .* must return None or the number of bytes it took"):
            operation(io.BytesIO(source), Keeping(lambda data: answer))


class Async:
    """A reader and writer for asyncio."""

    async def read(self, size):
        return b""

    async def write(self, data):
        return None


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("side", ("reader", "writer"))
def test_a_stream_to_be_awaited_is_told_where_it_belongs(cipher, side):
    """`TypeError` instead of an upload of nothing; and no warning of a coroutine that was never awaited."""
    ends = (Async(), io.BytesIO()) if side == "reader" else (io.BytesIO(b"x"), Async())
    with pytest.raises(TypeError, match=rf"the {side} .*kmsbridge\.aio"):
        cipher.encrypt_stream(*ends)
    gc.collect()


class Download(OnlyRead):
    """A cloud SDK's download, whose `readinto` fills a file."""

    def readinto(self, file):
        return file.write(self.read(-1))


def test_readinto_of_what_is_no_file_is_left_alone(cipher):
    """`read` is what it has in common with files."""
    sealed = OnlyWrite()
    cipher.encrypt_stream(Download(PLAIN), sealed)
    assert cipher.decrypt(sealed.data) == PLAIN


class Answering:
    """A reader that gives one thing."""

    def __init__(self, answer):
        self.answer = answer

    def read(self, size):
        return self.answer(size) if callable(self.answer) else self.answer


@pytest.mark.parametrize(
    ("answer", "error"),
    (
        ("text", TypeError),
        (7, TypeError),
        (lambda size: bytes(size + 1), ValueError),
        (None, BlockingIOError),
    ),
    ids=("text", "a number", "too much", "None"),
)
def test_a_reader_that_gives_no_bytes_is_told_whose_fault_it_is(cipher, answer, error):
    """By name; no byte of too many is lost in silence."""
    for operation in (cipher.encrypt_stream, cipher.decrypt_stream, inspect_stream):
        target = () if operation is inspect_stream else (io.BytesIO(),)
        with pytest.raises(error, match="the reader"):
            operation(Answering(answer), *target)


@pytest.mark.parametrize("answer", (bytearray, memoryview, lambda data: memoryview(data).cast("I")))
def test_any_bytes_will_do(cipher, answer):
    """Whatever buffer a reader gives them in."""
    pieces = [answer(PLAIN[:4000]), b""]
    sealed = OnlyWrite()
    cipher.encrypt_stream(Answering(lambda size: pieces.pop(0)), sealed)
    assert cipher.decrypt(sealed.data) == PLAIN[:4000]


def in_gzip(data, path):
    with gzip.open(path, "wb") as file:
        file.write(data)
    return gzip.open(path)


def spooled(data, path):
    file = tempfile.SpooledTemporaryFile(max_size=1000)  # noqa: SIM115 - closed by the test
    file.write(data)
    file.seek(0)
    return file


def response(data, path):
    """What `http.client` reads from a server, in chunks."""

    class Sock:
        def makefile(self, mode):
            head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            parts = (data[at : at + 5000] for at in range(0, len(data), 5000))
            body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
            return io.BytesIO(head + body + b"0\r\n\r\n")

    found = http.client.HTTPResponse(Sock())
    found.begin()
    return found


def temporary(data, path):
    file = tempfile.NamedTemporaryFile(dir=path.parent)  # noqa: SIM115 - closed by the test
    file.write(data)
    file.seek(0)
    return file


@pytest.mark.parametrize("make", (in_gzip, spooled, response, temporary))
def test_the_standard_library_s_streams_are_read(cipher, tmp_path, make):
    """Compressed, temporary, from the network."""
    sealed, opened = OnlyWrite(), OnlyWrite()
    with make(PLAIN, tmp_path / "file") as reader:
        cipher.encrypt_stream(reader, sealed)
    with make(sealed.data, tmp_path / "file") as reader:
        cipher.decrypt_stream(reader, opened)
    assert opened.data == PLAIN


def small_spool(path, mode):
    return tempfile.SpooledTemporaryFile(max_size=9)


@pytest.mark.parametrize("make", (gzip.open, small_spool))
def test_the_standard_library_s_streams_are_written(cipher, tmp_path, make):
    """They take what they are given in one write."""
    with make(tmp_path / "file", "wb") as writer:
        cipher.encrypt_stream(io.BytesIO(PLAIN), writer)
        if writer.seekable() and writer.readable():
            writer.seek(0)
            assert cipher.decrypt(writer.read()) == PLAIN
            return
    with gzip.open(tmp_path / "file") as reader:
        assert cipher.decrypt(reader.read()) == PLAIN


class SoftTimeLimit(Exception):
    """What a task queue's signal handler raises."""


class Late(TimeoutError):
    """One that is an `OSError`, as many of them are."""


@pytest.mark.parametrize("kind", (SoftTimeLimit, Late, KeyboardInterrupt))
@pytest.mark.parametrize("side", ("reading", "writing", "waiting to read", "waiting to write"))
def test_an_exception_of_a_signal_handler_comes_out_of_a_stream_unchanged(cipher, kind, side):
    """The very one, from a read or write that hangs or a wait for what does not block."""
    mine = kind("mine")

    def handle(number, frame):
        raise mine

    reading, writing = os.pipe()
    for end in (reading, writing):
        os.set_blocking(end, not side.startswith("waiting"))
    before = signal.signal(signal.SIGUSR1, handle)
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1)).start()
    try:
        with (
            os.fdopen(reading, "rb", buffering=0) as reader,
            os.fdopen(writing, "wb", buffering=0) as writer,
            pytest.raises(kind) as caught,
        ):
            if side.endswith(("reading", "read")):
                cipher.encrypt_stream(reader, io.BytesIO())
            else:
                cipher.encrypt_stream(io.BytesIO(bytes(10**6)), writer)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert caught.value is mine


@pytest.mark.parametrize("name", ("encrypt_stream", "decrypt_stream"))
def test_a_stream_in_progress_ends_when_its_cipher_is_closed(service, name):
    """`ClosedError` at its next step."""
    cipher = EnvelopeCipher.from_uri("fake:app")
    data = PLAIN if name == "encrypt_stream" else cipher.encrypt(PLAIN)

    class Closing(Reluctant):
        def readinto(self, buffer):
            if self.at > len(data) // 2:
                cipher.close()
            return super().readinto(buffer)

    with pytest.raises(ClosedError):
        getattr(cipher, name)(Closing(data), io.BytesIO())


@pytest.mark.parametrize(
    ("reader", "writer"),
    ((io.StringIO("text"), io.BytesIO()), (io.BytesIO(b"x"), io.StringIO())),
    ids=("reader", "writer"),
)
def test_text_streams_are_told(cipher, reader, writer):
    """`TypeError`."""
    with pytest.raises(TypeError):
        cipher.encrypt_stream(reader, writer)


@pytest.mark.parametrize("cut", (0, 3, 8, 60, 200, 20_000, -16, -1), ids="cut at {}".format)
def test_a_stream_cut_short_is_refused_and_gives_a_true_beginning_at_most(cipher, cut):
    """Only verified chunks are written; that the end is missing is raised."""
    target = io.BytesIO()
    message = cipher.encrypt(PLAIN)
    with pytest.raises((AuthenticationError, MalformedMessage)):
        cipher.decrypt_stream(io.BytesIO(message[:cut]), target)
    assert PLAIN.startswith(target.getvalue())
    assert len(target.getvalue()) < len(PLAIN)


def test_nothing_of_a_changed_chunk_is_written(cipher):
    """What comes before it is, whole chunks of it."""
    message = bytearray(cipher.encrypt(PLAIN))
    message[-100_000] ^= 1
    target = io.BytesIO()
    with pytest.raises(AuthenticationError):
        cipher.decrypt_stream(Reluctant(message), target)
    assert PLAIN.startswith(target.getvalue())
    assert len(target.getvalue()) % 16384 == 0


def test_a_stream_is_encrypted_as_it_comes(cipher):
    """The first chunks leave before the last have come."""
    first, rest = threading.Event(), threading.Event()

    class Waiting(Reluctant):
        def readinto(self, buffer):
            if self.at >= 100_000:
                rest.wait(30)
            return super().readinto(buffer)

    class Noticing(Reluctant):
        def write(self, data):
            if len(self.data) > 20_000:
                first.set()
            return super().write(data)

    outcome = Outcome(lambda: cipher.encrypt_stream(Waiting(PLAIN), Noticing(most=10**6)))
    assert first.wait(30)
    rest.set()
    assert outcome.join().error is None
