"""A file that encrypts what is written to it, for asyncio."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self

from kmsbridge.aio import streams
from kmsbridge.aio.base import discreet
from kmsbridge.aio.threads import to_its_end
from kmsbridge.atomic import PathLike
from kmsbridge.cipher.unfinished import STEP, UnfinishedMessage
from kmsbridge.cipher.writing import MessageWriter, create_message
from kmsbridge.message import cobblestone
from kmsbridge.streams import BytesLike, Writable

_CHUNK: Final = cobblestone.CHUNK


class Writer:
    """A file that encrypts what is written to it, with `await`; tasks may share it, and take turns.

    Use it with `async with`: where that ends with an exception, where any write failed or was cancelled, and
    where the cipher was closed, the message is never completed, as that of a `kmsbridge.MessageWriter`.
    """

    def __init__(self, sync: MessageWriter, message: UnfinishedMessage, outbox: _Outbox | None) -> None:
        self._sync, self._message, self._outbox = sync, message, outbox
        self._turn = asyncio.Lock()

    def tell(self) -> int:
        """Return how many bytes were written, before encryption."""
        return self._sync.tell()

    @discreet
    async def write(self, data: BytesLike, /) -> int:
        """Encrypt all of `data`, which must not change until this returns; return its length in bytes.

        Raises what the target raises, `ClosedError` once the cipher is closed, and `OSError` after an earlier
        write failed or was cancelled.
        """
        view = memoryview(data).cast("B")
        async with self._turn:
            if self._sync.tell() % _CHUNK + len(view) < _CHUNK:
                self._sync.write(view)  # it completes no chunk, so that nothing goes to the target
                return len(view)
            step = len(view) if self._outbox is None else STEP
            for at in range(0, len(view), step):
                await self._run(self._sync.write, view[at : at + step])
        return len(view)

    @discreet
    async def flush(self) -> None:
        """Flush the target. Up to 16 KiB stay here, since a chunk is encrypted as a whole."""
        async with self._turn:
            await self._run(self._sync.flush)

    @discreet
    async def close(self) -> None:
        """Complete the message; may be repeated. Raises what `write` raises; then it is not completed."""
        async with self._turn:
            await self._run(self._sync.close)

    async def abandon(self) -> None:
        """End writing without completing the message; does nothing once it is complete."""
        async with self._turn:
            self._sync.abandon()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await (self.close() if kind is None else self.abandon())

    async def _run(self, call: Callable[..., Any], *args: Any) -> None:
        """Call a method of the file: on a thread, or here and then send what it wrote."""
        try:
            if self._outbox is None:
                await to_its_end(call, *args)
            else:
                call(*args)
                await self._outbox.send()
        except (asyncio.CancelledError, Exception) as error:
            # Nobody knows how much of it was written.
            if isinstance(error, asyncio.CancelledError) or self._outbox is not None:
                self._message.give_up(error)
            raise


class _Outbox:
    """Holds encrypted bytes until a writer whose `write` must be awaited has taken them."""

    def __init__(self, writer: streams.AsyncWriter) -> None:
        self._writer = writer
        self._parts: list[bytes] = []

    def write(self, data: bytes, /) -> None:
        """Keep `data` until it is sent."""
        self._parts.append(data)

    async def send(self) -> None:
        """Send all that was written."""
        data, self._parts = b"".join(self._parts), []
        await streams.write_all(self._writer, data)


async def create_writer(
    target: PathLike | Writable | streams.AsyncWriter, message: UnfinishedMessage
) -> Writer:
    """Return a file that encrypts what is written to it into `target`.

    A path and a file of Python's own are written on a thread, anything else on the event loop, with `await`
    where its `write` or `drain` gives something to await.
    """
    try:
        if isinstance(target, (str, bytes, os.PathLike, io.IOBase)):
            return Writer(await to_its_end(create_message, target, message), message, None)
        if not hasattr(target, "write"):
            return Writer(create_message(target, message), message, None)  # which raises
        outbox = _Outbox(target)
        sync = create_message(outbox, message)
        await outbox.send()
    except BaseException as error:
        message.give_up(error)
        raise
    return Writer(sync, message, outbox)
