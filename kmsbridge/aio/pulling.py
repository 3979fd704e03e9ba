"""A message that is read while it is encrypted, for asyncio."""

from __future__ import annotations

import asyncio
import inspect
import io
import sys
from typing import Any

from kmsbridge.aio import streams
from kmsbridge.aio.base import discreet
from kmsbridge.aio.threads import to_its_end
from kmsbridge.cipher.unfinished import STEP, UnfinishedMessage
from kmsbridge.streams import Readable, read_into


class EncryptingReader:
    """A message that holds what a source gives, encrypted as it is read: an asynchronous iterator of blocks.

    `read` gives it as from a file. Once a read failed or was cancelled, every later one raises, so that a
    message of which a part is missing never ends as if it were complete. Tasks may share it, and take turns.
    The source is left open.
    """

    def __init__(self, source: Readable | streams.AsyncReader, message: UnfinishedMessage) -> None:
        self._source: Any = source
        self._message = message
        self._encrypted = memoryview(message.header)
        """The encrypted bytes that the next read returns first."""
        self._at_end = self._closed = False
        self._turn = asyncio.Lock()
        # Of what is neither, `streams.read` finds out and says so.
        self._blocks = hasattr(source, "readinto") and not inspect.iscoroutinefunction(source.read)

    @discreet
    async def read(self, size: int = -1, /) -> bytes:
        """Return `size` bytes of the message, fewer only at its end; all that is left where it is negative.

        Raises what the source raises, `ClosedError` once the cipher is closed, and `OSError` after an earlier
        read failed or was cancelled.
        """
        left = sys.maxsize if size < 0 else size
        data = io.BytesIO()  # joining parts would copy all of it once more
        async with self._turn:
            while left and (part := await self._take(left)):
                left -= data.write(part)
        return data.getvalue()

    async def close(self) -> None:
        """Forget the key; the source stays open."""
        async with self._turn:
            self._closed = True
            self._message.give_up()

    def __aiter__(self) -> EncryptingReader:
        return self

    @discreet
    async def __anext__(self) -> bytes:
        async with self._turn:
            block = bytes(await self._take(sys.maxsize))
        if not block:
            raise StopAsyncIteration
        return block

    async def _take(self, most: int) -> memoryview:
        """Return at most `most` bytes, valid until the next call; none at the end."""
        if self._closed:
            raise ValueError("I/O operation on a closed message")
        self._message.check()
        while not self._encrypted and not self._at_end:
            await self._encrypt_more()
        part, self._encrypted = self._encrypted[:most], self._encrypted[most:]
        return part

    async def _encrypt_more(self) -> None:
        try:
            count = await self._pull()
        except BaseException as error:
            self._message.give_up(error)
            raise
        with self._message.turn():
            if count:
                self._encrypted = self._message.encrypt(count)
            else:
                self._encrypted = memoryview(self._message.finalize())
                self._at_end = True

    async def _pull(self) -> int:
        """Read once into the message's buffer; return the number of bytes, 0 at the source's end."""
        plain = self._message.step.plain
        if self._blocks:
            return await to_its_end(read_into, self._source, plain)
        data = await streams.read(self._source, STEP)
        plain[: len(data)] = data
        return len(data)
