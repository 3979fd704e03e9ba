"""Files and streams, in constant memory."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from kmsbridge import atomic
from kmsbridge import message as wire
from kmsbridge.atomic import PathLike
from kmsbridge.cipher import parallel
from kmsbridge.datakeys import DataKey
from kmsbridge.errors import AuthenticationError
from kmsbridge.message import chunked, cobblestone
from kmsbridge.streams import read_at, read_into, write_all, write_at

if TYPE_CHECKING:
    from kmsbridge.cipher.reading import ChunksOf
    from kmsbridge.message.chunk_reader import ChunkReader

STEP_CHUNKS = 64
"""Chunks in one step. The buffers of a step are reused: fresh pages cost more than the cipher."""
STEP = STEP_CHUNKS * cobblestone.CHUNK
ENCRYPTED_STEP = STEP_CHUNKS * cobblestone.ENCRYPTED_CHUNK
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
    """Encrypt `source` into `target`, with room in the header to rewrap it in place.

    The full steps that `source` has at the start are done by several threads. What is behind them is read as a
    stream, so the message ends where the file does by then.
    """
    header = wire.inline(wire.parse_header(data_key.header).recipients, padded=True)
    encryptor = data_key.body_encryptor(aad)
    with atomic.open_regular(source) as reader, atomic.replacing(target) as writer:
        write_all(writer, header.encode() + encryptor.update(b""))
        size = os.fstat(reader.fileno()).st_size
        steps, rest = divmod(size, STEP)
        _encrypt_steps(encryptor, steps, reader, writer, ticker)
        encrypt_stream(encryptor, reader, writer, ticker, rest // cobblestone.CHUNK + 1)
        if os.fstat(reader.fileno()).st_size < size:
            raise _cut_short(reader)


def _encrypt_steps(
    encryptor: chunked.BodyEncryptor, steps: int, reader: BinaryIO, writer: BinaryIO, ticker: Ticker
) -> None:
    """Encrypt the first `steps` steps of `reader`, and move both files behind them."""
    start, first = writer.tell(), encryptor.reserve(steps * STEP_CHUNKS)

    def work(numbers: Iterator[int]) -> Iterator[int]:
        step = chunked.Step(STEP_CHUNKS)
        for number in numbers:
            if read_at(reader, step.plain, number * STEP) < STEP:
                raise _cut_short(reader)
            encryptor.encrypt_reserved(first + number * STEP_CHUNKS, step.chunks)
            write_at(writer, step.encrypted, start + number * ENCRYPTED_STEP)
            yield STEP

    parallel.run(work, steps, ticker.add)
    reader.seek(steps * STEP)
    writer.seek(start + steps * ENCRYPTED_STEP)


def _cut_short(reader: BinaryIO) -> OSError:
    return OSError(errno.EBUSY, "the file was cut short while it was read", str(reader.name))


def decrypt_file(chunks_of: ChunksOf, source: PathLike, target: PathLike, ticker: Ticker) -> None:
    """Decrypt `source` into `target`, which only its owner may read. Full steps are done by several threads.

    The last chunk is verified first: `chunks_of` does it.
    """
    from kmsbridge import journal
    from kmsbridge.cipher import reading
    from kmsbridge.message.chunk_reader import ChunkReader

    with atomic.open_regular(source) as reader:
        header, end = journal.header_of(source, reader), os.fstat(reader.fileno()).st_size
        chunks = reading.chunks_in(reader, header, chunks_of)
        with atomic.replacing(target, mode=0o600) as writer:
            first = 0
            if isinstance(chunks, ChunkReader):
                first = _decrypt_steps(chunks, reader, header.length + cobblestone.OVERHEAD, writer, ticker)
            for number in range(first, chunks.size // cobblestone.CHUNK + 1):
                plaintext = chunks.chunk(number)
                write_all(writer, plaintext)
                ticker.add(len(plaintext))
            if os.fstat(reader.fileno()).st_size != end:
                raise AuthenticationError  # what was added is no part of the message
            ticker.done = max(ticker.done, end - header.length)
            ticker.end()


def _decrypt_steps(
    chunks: ChunkReader, reader: BinaryIO, start: int, writer: BinaryIO, ticker: Ticker
) -> int:
    """Decrypt the full steps of `reader`, whose chunks begin at `start`, and move `writer` behind them.

    Return the number of the chunk that comes next.
    """
    steps = chunks.size // STEP

    def work(numbers: Iterator[int]) -> Iterator[int]:
        step = chunked.Step(STEP_CHUNKS)
        for number in numbers:
            if read_at(reader, step.encrypted, start + number * ENCRYPTED_STEP) < ENCRYPTED_STEP:
                raise AuthenticationError  # it was cut short meanwhile
            chunks.decrypt_step(number * STEP_CHUNKS, step)
            write_at(writer, step.plain, number * STEP)
            yield ENCRYPTED_STEP

    parallel.run(work, steps, ticker.add)
    writer.seek(steps * STEP)
    return steps * STEP_CHUNKS


def encrypt_stream(
    encryptor: chunked.BodyEncryptor,
    reader: BinaryIO,
    writer: BinaryIO,
    ticker: Ticker,
    chunks: int = STEP_CHUNKS,
) -> None:
    """Encrypt what `reader` holds into `writer`, `chunks` chunks in one step."""
    step = chunked.Step(chunks)
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
