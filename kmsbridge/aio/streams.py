"""Streams that are read and written with `await`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

from kmsbridge import message as wire
from kmsbridge.cipher.files import StreamDecryptor
from kmsbridge.message import chunked
from kmsbridge.streams import checked_read, count_written, is_awaitable

STEP: Final = 64 * 1024


class AsyncReader(Protocol):
    """An `asyncio.StreamReader`, or anything whose awaited `read(n)` gives up to `n` bytes, and b"" at the
    end.
    """

    def read(self, n: int = -1, /) -> Awaitable[bytes]: ...


class AsyncWriter(Protocol):
    """An `asyncio.StreamWriter`, or anything with a `write`, which is awaited where it wants that.

    `drain` is called after each write where there is one.
    """

    def write(self, data: bytes, /) -> Any: ...


async def encrypt_stream(
    encryptor: chunked.BodyEncryptor, reader: AsyncReader, writer: AsyncWriter, check_open: Callable[[], None]
) -> int:
    """Encrypt what `reader` holds into `writer`; return how many bytes it was."""
    done = 0
    while data := await read(reader, STEP):
        check_open()
        done += len(data)
        await write_all(writer, encryptor.update(data))
    await write_all(writer, encryptor.finalize())
    return done


async def decrypt_stream(
    decryptor: StreamDecryptor,
    start: bytes,
    reader: AsyncReader,
    writer: AsyncWriter,
    check_open: Callable[[], None],
) -> None:
    """Decrypt the body that is `start` and what `reader` holds; nothing unverified is ever written."""
    data = start
    while data or (data := await read(reader, STEP)):
        check_open()
        await write_all(writer, decryptor.update(data))
        data = b""
    await write_all(writer, decryptor.finalize())


async def write_all(writer: Any, data: bytes) -> None:
    """Write all of `data`, in as many writes as it takes, and have it drained."""
    at = 0
    while at < len(data):
        part = data[at : at + STEP] if at else data
        answer = writer.write(part)
        at += count_written(await answer if is_awaitable(answer) else answer, len(part))
    drain = getattr(writer, "drain", None)
    if drain is not None and is_awaitable(drained := drain()):
        await drained


async def read(reader: Any, length: int) -> bytes:
    """Return at most `length` bytes, as they come; b"" at the end."""
    coming = reader.read(length)
    if not is_awaitable(coming):
        raise TypeError(
            "the reader is not to be awaited: use the classes of kmsbridge for it, not of kmsbridge.aio"
        )
    return bytes(checked_read(await coming, length))


async def read_start(reader: AsyncReader) -> tuple[wire.Header, bytes]:
    """Return the header of a stream, and as much of its body as shows whether its length is allowed."""
    fixed = await _read_up_to(reader, wire.FIXED)
    rest = await _read_up_to(reader, wire.header_length(fixed) - len(fixed))
    header = wire.parse_header(fixed + rest)
    start = await _read_up_to(reader, wire.start_of_body(header.kind))
    wire.check_body_length(header.kind, len(start))
    return header, start


async def _read_up_to(reader: AsyncReader, length: int) -> bytes:
    data = b""
    while len(data) < length and (part := await read(reader, length - len(data))):
        data += part
    return data
