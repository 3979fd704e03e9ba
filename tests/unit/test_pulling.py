"""What `encrypting` gives is a file to read a message from, as an upload does."""

import errno
import io
import os
import pickle
import shutil
import tracemalloc

import pytest

from kmsbridge import ClosedError, EncryptingReader, EnvelopeCipher, ReentrantCall, inspect
from tests.support import finish, fork, on_threads

PLAIN = os.urandom(200_000)


class Short(io.RawIOBase):
    """A source that gives a few bytes at a time."""

    def __init__(self, data, most):
        super().__init__()
        self.file, self.most = io.BytesIO(data), most

    def readable(self):
        return True

    def readinto(self, buffer):
        data = self.file.read(min(len(buffer), self.most))
        buffer[: len(data)] = data
        return len(data)


class Duck:
    """A source with a `read` and nothing else."""

    def __init__(self, data):
        self.read = io.BytesIO(data).read


def by(size):
    def read(file):
        parts = []
        while part := file.read(size):
            parts.append(part)
            assert len(part) == size or not file.read(size)
        return b"".join(parts)

    return read


def into(file):
    buffer, parts = bytearray(10_000), []
    while count := file.readinto(buffer):
        parts.append(bytes(buffer[:count]))
    return b"".join(parts)


def copied(file):
    target = io.BytesIO()
    shutil.copyfileobj(file, target)
    return target.getvalue()


def buffered(file):
    reader = io.BufferedReader(file)
    data = reader.read()
    reader.detach()
    return data


READS = {
    "at once": lambda file: file.read(),
    "None": lambda file: file.read(None),
    "one by one": by(1),
    "in blocks": by(4096),
    "in parts": by(100_000),
    "read1": lambda file: b"".join(iter(file.read1, b"")),
    "read1 of some": lambda file: b"".join(iter(lambda: file.read1(1000), b"")),
    "readinto": into,
    "iterated": b"".join,
    "copyfileobj": copied,
    "BufferedReader": buffered,
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
@pytest.mark.parametrize("size", (0, 1, 16_384, 65_536, 200_000))
def test_what_is_read_is_the_message(cipher, read, size):
    """However it is read."""
    file = cipher.encrypting(io.BytesIO(PLAIN[:size]), context={"a": "b"}, aad=b"1")
    message = read(file)
    assert cipher.decrypt(message, context={"a": "b"}, aad=b"1") == PLAIN[:size]
    assert inspect(message).padding == 0
    assert file.read() == file.read(10) == file.read1() == b""


@pytest.mark.parametrize("most", (1, 1000, 16_384, 100_000))
def test_short_reads_of_the_source_make_no_difference(cipher, most):
    """Nor does a source with `read` alone."""
    assert cipher.decrypt(cipher.encrypting(Short(PLAIN, most)).read()) == PLAIN
    assert cipher.decrypt(cipher.encrypting(Duck(PLAIN)).read()) == PLAIN


def test_it_is_a_readable_binary_file(cipher):
    """That cannot seek; closing it leaves the source open."""
    source = io.BytesIO(PLAIN)
    with cipher.encrypting(source) as file:
        assert isinstance(file, EncryptingReader)
        assert isinstance(file, io.BufferedIOBase)
        assert (file.readable(), file.seekable(), file.writable(), file.closed) == (True, False, False, False)
        assert (file.name, file.mode) == ("", "rb")
        assert file.read(0) == file.read1(0) == b""
        assert source.tell() == 0
        for unsupported in (file.tell, file.fileno, lambda: file.seek(0), lambda: file.write(b"x")):
            with pytest.raises(io.UnsupportedOperation):
                unsupported()
        with pytest.raises(TypeError, match="holds a key"):
            pickle.dumps(file)
    file.close()
    assert not source.closed
    for call in (file.read, file.read1, lambda: file.readinto(bytearray(1)), lambda: next(file)):
        with pytest.raises(ValueError, match="closed"):
            call()


def test_the_source_is_read_as_the_message_is(cipher):
    """One step ahead at most, whatever was asked for."""
    source = io.BytesIO(PLAIN)
    file = cipher.encrypting(source)
    file.read(100)
    assert source.tell() <= 65_536


@pytest.mark.parametrize("size", (1000, 2**20, 2**40), ids=("1000", "1 MiB", "1 TiB"))
def test_memory_is_bounded_by_what_there_is(cipher, size):
    """A large `n` takes no more than the message has."""

    class Zeros:
        left = 20 * 2**20

        def read(self, size):
            size = min(size, self.left)
            self.left -= size
            return bytes(size)

    if size == 2**40:
        Zeros.left = 2**20
    file = cipher.encrypting(Zeros())
    file.read(1)
    tracemalloc.start()
    try:
        while file.read(size):
            pass
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 5 * 2**20


class Breaking:
    """A source that raises once, and then ends, as a connection that was cut may."""

    def __init__(self, error, good=2):
        self.error, self.good = error, good

    def read(self, size):
        self.good -= 1
        if self.good == -1:
            raise self.error
        return b"x" * size if self.good >= 0 else b""


class Stop(Exception):
    pass


@pytest.mark.parametrize(
    ("error", "number"),
    (
        (ConnectionResetError(errno.ECONNRESET, "reset"), errno.ECONNRESET),
        (Stop(), errno.EIO),
        (KeyboardInterrupt(), errno.EIO),
        (InterruptedError(errno.EINTR, "x"), errno.EIO),
        (BlockingIOError(errno.EAGAIN, "x"), errno.EIO),
    ),
    ids=lambda each: type(each).__name__,
)
@pytest.mark.parametrize("read", ("read", "read1", "readinto", "__next__"))
def test_after_a_source_that_raised_each_read_raises(cipher, error, number, read):
    """A client that tries again never gets an end that looks like one."""
    file, got = cipher.encrypting(Breaking(error)), []

    def once():
        if read == "readinto":
            buffer = bytearray(1000)
            return bytes(buffer[: file.readinto(buffer)])
        return getattr(file, read)(*[1000] * (read != "__next__"))

    with pytest.raises(type(error)):
        while True:
            got.append(once())
            assert got[-1]
    for _ in range(3):
        with pytest.raises(OSError, match="earlier") as caught:
            once()
        assert caught.value.errno == number
    from kmsbridge import AuthenticationError

    with pytest.raises(AuthenticationError):
        cipher.decrypt(b"".join(got))


def test_a_source_of_a_wrong_kind_is_told(cipher):
    """As of `encrypt_stream`."""
    for wrong, error in ((io.StringIO("text"), TypeError), (7, AttributeError)):
        with pytest.raises(error):
            cipher.encrypting(wrong).read()


def test_closing_the_cipher_meanwhile_ends_it(service):
    """`ClosedError`, each time."""
    cipher = EnvelopeCipher.from_uri("fake:app")
    file = cipher.encrypting(io.BytesIO(PLAIN))
    file.read(1000)
    cipher.close()
    for call in (file.read, file.read1, lambda: file.read(1), lambda: next(file)):
        with pytest.raises(ClosedError):
            call()
    file.close()


def test_threads_may_share_it(cipher):
    """Each byte of the message goes to one of them, and to no other."""
    file = cipher.encrypting(io.BytesIO(PLAIN))
    outcomes = on_threads(4, lambda: list(iter(lambda: file.read(997), b"")))
    assert [outcome.error for outcome in outcomes] == [None] * 4
    parts = [part for outcome in outcomes for part in outcome.value]
    whole = cipher.encrypting(io.BytesIO(PLAIN)).read()
    assert sum(map(len, parts)) == len(whole)
    assert len(set(parts)) == len(parts)


def test_a_signal_handler_in_the_middle_of_a_read_is_refused(cipher):
    """`ReentrantCall`; what it interrupted goes on."""
    refused = []

    class Handled(io.BytesIO):
        def readinto(self, buffer):
            with pytest.raises(ReentrantCall):
                file.read(1)
            refused.append(1)
            return super().readinto(buffer)

    file = cipher.encrypting(Handled(PLAIN))
    assert cipher.decrypt(file.read()) == PLAIN
    assert refused


def test_a_forked_child_cannot_go_on_with_it(cipher):
    """Two processes would encrypt different bytes with the same nonces."""
    file = cipher.encrypting(io.BytesIO(PLAIN))
    start = file.read(1000)

    def in_child():
        with pytest.raises(ClosedError, match="forked"):
            file.read()
        file.close()

    finish([fork(in_child)])
    assert cipher.decrypt(start + file.read()) == PLAIN


def test_it_goes_through_create_and_open(cipher, tmp_path):
    """What pulls and what is pushed to fit each other."""
    with cipher.create(tmp_path / "twice") as outer:
        shutil.copyfileobj(cipher.encrypting(io.BytesIO(PLAIN)), outer)
    with cipher.open(tmp_path / "twice") as once:
        assert cipher.decrypt(once.read()) == PLAIN
