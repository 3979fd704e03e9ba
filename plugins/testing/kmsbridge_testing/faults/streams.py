"""Operations of a `FaultProxy` on the streams of a connection."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Final

BLOCK: Final = 65536
QUIET: Final = 0.02
"""Seconds without a byte after which an answer is taken to be complete."""
ENDLESS: Final = 2**28
"""The length of an "endless" answer in bytes, so that a client that reads it all does not use up the memory."""


async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass everything on, including the end."""
    while data := await reader.read(BLOCK):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


async def whole(reader: asyncio.StreamReader) -> bytes:
    """Return what arrives until the end, or until nothing arrives for `QUIET` seconds."""
    data = await reader.read(BLOCK)
    try:
        while more := await asyncio.wait_for(reader.read(BLOCK), QUIET):
            data += more
    except TimeoutError:
        pass
    return data


async def say(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes, *, then_end: bool
) -> None:
    """Read a request and answer with `data`; then close, or wait until the other side closes."""
    await whole(reader)
    writer.write(data)
    await writer.drain()
    if then_end and writer.can_write_eof():
        writer.write_eof()
    if not then_end or writer.can_write_eof():
        # Closing with bytes of the request unread would turn the answer into a reset.
        await swallow(reader)


async def say_for_ever(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes, block: bytes
) -> None:
    """Read a request and answer with `head` and then `block` repeatedly, up to `ENDLESS` bytes."""
    await whole(reader)
    writer.write(head)
    for _ in range(ENDLESS // len(block)):
        writer.write(block)
        await writer.drain()
    await swallow(reader)


async def swallow(reader: asyncio.StreamReader) -> None:
    """Read until the other side ends."""
    while await reader.read(BLOCK):
        pass


def half_of(answer: bytes) -> int:
    """Return the position of the middle of an answer, or of its body if it looks like HTTP."""
    head, end, body = answer.partition(b"\r\n\r\n")
    return len(head + end) + len(body) // 2 if end else len(answer) // 2


def abort(writer: asyncio.StreamWriter) -> None:
    """End a connection with a reset."""
    raw: socket.socket | None = writer.get_extra_info("socket")
    if raw is not None and raw.fileno() >= 0:
        # A linger time of 0 makes the close a reset.
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def bound(port: int) -> socket.socket:
    """Return a socket bound to the port, which refuses connections until it listens.

    Other sockets of this function may share the port.
    """
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(("127.0.0.1", port))
    return sock
