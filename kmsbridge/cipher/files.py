"""Files and streams, in constant memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, BinaryIO, Protocol

from kmsbridge import atomic
from kmsbridge import message as wire
from kmsbridge.atomic import PathLike
from kmsbridge.datakeys import DataKey
from kmsbridge.message import chunked, cobblestone
from kmsbridge.streams import read_into, write_all

STEP = 64 * cobblestone.CHUNK
"""Bytes of plaintext in one step. The buffers are reused: fresh pages cost more than the cipher."""
ENCRYPTED_STEP = 64 * cobblestone.ENCRYPTED_CHUNK
Progress = Callable[[int], None]


class StreamDecryptor(Protocol):
    """Decrypts a body from front to back: a `chunked.BodyDecryptor`, or what takes its place for a direct
    message.
    """

    @staticmethod
    def output_size(length: int) -> int: ...
    def update(self, sealed: Any) -> bytes: ...
    def update_into(self, sealed: Any, buffer: Any) -> int: ...
    def finalize(self) -> bytes: ...


class Ticker:
    """Calls `progress` with the bytes done, ten times a second at most, and at the end.

    `check_open`, called after every step, raises where the cipher was closed meanwhile.
    """

    def __init__(self, progress: Progress | None, check_open: Callable[[], None]) -> None:
        self._progress = progress
        self._check_open = check_open
        self.done = 0
        self._next = 0.0

    def add(self, count: int) -> None:
        """Count so many more bytes as done."""
        self._check_open()
        self.done += count
        if self._progress is not None and (now := time.monotonic()) >= self._next:
            self._next = now + 0.1
            self._progress(self.done)

    def end(self) -> None:
        """Call `progress` with the final count."""
        if self._progress is not None:
            self._progress(self.done)


def encrypt_file(data_key: DataKey, aad: bytes, source: PathLike, target: PathLike, ticker: Ticker) -> None:
    """Encrypt `source` into `target`, with room in the header to rewrap it in place."""
    header = wire.inline(wire.parse_header(data_key.header).recipients, padded=True)
    with atomic.open_regular(source) as reader, atomic.replacing(target) as writer:
        write_all(writer, header.encode())
        encrypt_stream(data_key.body_encryptor(aad), reader, writer, ticker)


def decrypt_file(
    decryptor: Callable[[wire.Header, bytes], StreamDecryptor],
    source: PathLike,
    target: PathLike,
    ticker: Ticker,
) -> None:
    """Decrypt `source` into `target`, which only its owner may read.

    `decryptor` is given the header and the body's first bytes.
    """
    from kmsbridge import journal

    with atomic.open_regular(source) as reader:
        header = journal.header_of(source, reader)
        reader.seek(header.length)
        start = journal.read_exactly(reader, wire.min_body(header.kind))
        reader.seek(header.length)
        with atomic.replacing(target, mode=0o600) as writer:
            decrypt_stream(decryptor(header, start), reader, writer, ticker)


def encrypt_stream(
    encryptor: chunked.BodyEncryptor, reader: BinaryIO, writer: BinaryIO, ticker: Ticker
) -> None:
    """Encrypt what `reader` holds into `writer`."""
    step = chunked.Step(STEP // cobblestone.CHUNK)
    while count := read_into(reader, step.plain):
        write_all(writer, encryptor.encrypt_step(step, count))
        ticker.add(count)
    write_all(writer, encryptor.finalize())
    ticker.end()


def decrypt_stream(
    decryptor: StreamDecryptor, reader: BinaryIO, writer: BinaryIO, ticker: Ticker, start: bytes = b""
) -> None:
    """Decrypt the body that is `start` and what `reader` holds; nothing unverified is ever written."""
    sealed, plain = (
        memoryview(bytearray(ENCRYPTED_STEP)),
        memoryview(bytearray(decryptor.output_size(ENCRYPTED_STEP))),
    )
    if start:
        write_all(writer, plain[: decryptor.update_into(start, plain)])
        ticker.add(len(start))
    while count := read_into(reader, sealed):
        write_all(writer, plain[: decryptor.update_into(sealed[:count], plain)])
        ticker.add(count)
    write_all(writer, decryptor.finalize())
    ticker.end()


def read_start(reader: BinaryIO) -> tuple[wire.Header, bytes]:
    """Return the header of a stream, and as much of its body as shows whether its length is allowed."""
    fixed = _read_up_to(reader, wire.FIXED)
    header = wire.parse_header(fixed + _read_up_to(reader, wire.header_length(fixed) - len(fixed)))
    start = _read_up_to(reader, wire.start_of_body(header.kind))
    wire.check_body_length(header.kind, len(start))
    return header, start


def copy_rest(reader: BinaryIO, writer: BinaryIO) -> None:
    """Write what `reader` holds from its position on; `shutil.copyfileobj` would lose what a full disk cuts
    off.
    """
    buffer = memoryview(bytearray(STEP))
    while count := read_into(reader, buffer):
        write_all(writer, buffer[:count])


def _read_up_to(reader: BinaryIO, length: int) -> bytes:
    data = bytearray(max(length, 0))
    done = 0
    while done < length:
        count = read_into(reader, memoryview(data)[done:])
        if not count:
            break
        done += count
    return bytes(data[:done])
