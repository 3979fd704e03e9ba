"""Streams that are read and written with `await`."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, Final, Protocol

from kmsbridge import body
from kmsbridge import message as wire

STEP: Final = 64 * 1024


class AsyncReader(Protocol):
    """What `asyncio.StreamReader` is: `read(n)` gives b"" at the end."""

    def read(self, n: int = -1, /) -> Awaitable[bytes]: ...


class AsyncWriter(Protocol):
    """What `asyncio.StreamWriter` is."""

    def write(self, data: bytes, /) -> Any: ...
    def drain(self) -> Awaitable[None]: ...


async def seal_stream(sealer: body.Sealer, reader: AsyncReader, writer: AsyncWriter) -> int:
    """Seal what `reader` holds into `writer`; gives how many bytes it was."""
    done = 0
    while data := await reader.read(STEP):
        writer.write(sealer.update(data))
        done += len(data)
        await writer.drain()
    writer.write(sealer.finalize())
    await writer.drain()
    return done


async def read_start(reader: AsyncReader) -> tuple[wire.Header, bytes]:
    """As `cipher.files.read_start`."""
    fixed = await _read_up_to(reader, wire.FIXED)
    rest = await _read_up_to(reader, wire.header_length(fixed) - len(fixed))
    header, start = wire.parse_header(fixed + rest), await _read_up_to(reader, wire.MIN_BODY)
    wire.check_body_length(header.kind, len(start))
    return header, start


async def _read_up_to(reader: AsyncReader, length: int) -> bytes:
    data = b""
    while len(data) < length and (part := await reader.read(length - len(data))):
        data += part
    return data
