"""Streams: pipes, sockets, short reads and writes, and readers and writers that are none."""

import io
import os
import socket
import threading

import pytest

from kmsbridge import AuthenticationError, MalformedMessage
from tests.support import Outcome

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


@pytest.mark.parametrize("side", ("reader", "writer"))
def test_a_stream_that_does_not_block_is_told(cipher, side):
    """`BlockingIOError` instead of a stream with a hole."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    with (
        os.fdopen(reading, "rb", buffering=0) as reader,
        os.fdopen(writing, "wb", buffering=0) as writer,
        pytest.raises(BlockingIOError, match=side),
    ):
        ends = (reader, io.BytesIO()) if side == "reader" else (io.BytesIO(bytes(10**6)), writer)
        cipher.encrypt_stream(*ends)


def test_a_writer_that_takes_nothing_is_told(cipher):
    """`OSError` instead of trying for ever."""
    outcome = Outcome(lambda: cipher.encrypt_stream(io.BytesIO(PLAIN), Reluctant(most=0))).join()
    assert isinstance(outcome.error, OSError)


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
