"""A TCP proxy on the loopback interface that misbehaves on demand."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import threading
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Any, Final, Self

_BLOCK: Final = 65536
_QUIET: Final = 0.02
"""Seconds without a byte after which an answer is taken to be complete."""

_Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class FaultProxy:
    """Stands between a client and the service at `host`:`port`, on `address`; passes everything until told.

    Each fault holds for all connections from then on and ends those that are open, until `heal` or
    another fault. `connections` counts those made since the last of these calls. With `tls` the proxy
    itself ends TLS. It runs in a thread; `close` ends it and everything it opened.
    """

    def __init__(self, host: str, port: int, *, tls: ssl.SSLContext | None = None) -> None:
        self._target, self._tls = (host, port), tls
        self._reserved = _bound(0)
        self.address: tuple[str, int] = self._reserved.getsockname()
        self.connections = 0
        self._behaviour: _Behaviour = self._pass
        self._open: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="FaultProxy", daemon=True)
        self._thread.start()
        self.heal()

    def heal(self) -> None:
        """Pass everything on."""
        self._become(self._pass)

    def refuse(self) -> None:
        """Refuse connections: nobody listens, but the port stays taken."""
        self._become(None)

    def reset(self) -> None:
        """Reset each connection before a byte of it is read."""
        self._become(self._reset)

    def reset_after(self, count: int) -> None:
        """Pass requests on, and reset when `count` bytes of the answer were passed."""
        self._become(lambda reader, writer: self._answered(reader, writer, count, _abort))

    def hang(self) -> None:
        """Take what comes and answer nothing."""
        self._become(self._hang)

    def slow(self, bytes_per_second: float) -> None:
        """Pass answers on one byte at a time."""
        self._become(lambda reader, writer: self._trickle(reader, writer, 1 / bytes_per_second))

    def delay(self, seconds: float) -> None:
        """Pass requests on, and each answer `seconds` after it came."""
        self._become(lambda reader, writer: self._late(reader, writer, seconds))

    def half(self) -> None:
        """Pass on half of an answer (of its body where it looks like HTTP), and close."""
        self._become(lambda reader, writer: self._answered(reader, writer, None, _finish))

    def end(self) -> None:
        """Read a request and close without an answer."""
        self.answer(b"")

    def answer(self, data: bytes) -> None:
        """Read a request, answer with `data`, and close."""
        self._become(lambda reader, writer: _say(reader, writer, data))

    def close(self) -> None:
        """End the proxy; may be repeated."""
        if self._thread.is_alive():
            self._become(None)
            asyncio.run_coroutine_threadsafe(asyncio.sleep(0), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
            self._reserved.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- in the loop's thread ---------------------------------------------------------------------

    def _become(self, behaviour: _Behaviour | None) -> None:
        asyncio.run_coroutine_threadsafe(self._switch(behaviour), self._loop).result()

    async def _switch(self, behaviour: _Behaviour | None) -> None:
        self._behaviour = behaviour or self._reset
        if behaviour is None and self._server is not None:
            # Closed at once, it would lose those it has accepted and not yet handed to `_serve`.
            self._loop.remove_reader(self._server.sockets[0].fileno())
        for task in list(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)
        if behaviour is None and self._server is not None:
            await self._rest()
            self._server.close()
            await self._server.wait_closed()
            self._server = None
        elif behaviour is not None and self._server is None:
            listening = _bound(self.address[1])
            self._server = await asyncio.start_server(self._serve, sock=listening, ssl=self._tls)
        self.connections = 0

    async def _rest(self) -> None:
        """Wait for connections that were accepted already, and are reset when they are served."""
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._open[task] = writer
        try:
            await self._behaviour(reader, writer)
        except (OSError, asyncio.CancelledError):
            _abort(writer)
        finally:
            _finish(writer)
            del self._open[task]

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def back(upstream: asyncio.StreamReader) -> None:
            while data := await upstream.read(_BLOCK):
                writer.write(data)
                await writer.drain()

        await self._connected(reader, back)

    async def _trickle(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pause: float
    ) -> None:
        async def back(upstream: asyncio.StreamReader) -> None:
            while data := await upstream.read(1):
                writer.write(data)
                await writer.drain()
                await asyncio.sleep(pause)

        await self._connected(reader, back)

    async def _late(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pause: float) -> None:
        async def back(upstream: asyncio.StreamReader) -> None:
            while answer := await _whole(upstream):
                await asyncio.sleep(pause)
                writer.write(answer)
                await writer.drain()

        await self._connected(reader, back)

    async def _answered(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        count: int | None,
        end: Callable[[asyncio.StreamWriter], None],
    ) -> None:
        async def back(upstream: asyncio.StreamReader) -> None:
            answer = await _whole(upstream)
            writer.write(answer[: _half(answer) if count is None else count])
            await writer.drain()
            end(writer)

        await self._connected(reader, back)

    async def _reset(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _abort(writer)

    async def _hang(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(_BLOCK):
            pass

    async def _connected(
        self,
        reader: asyncio.StreamReader,
        back: Callable[[asyncio.StreamReader], Coroutine[Any, Any, None]],
    ) -> None:
        """Pass requests on to the service until `back`, which is handed its answers, is done."""
        upstream_reader, upstream_writer = await asyncio.open_connection(*self._target)
        answers = asyncio.create_task(back(upstream_reader))
        requests = asyncio.create_task(_forward(reader, upstream_writer))
        try:
            await answers
        finally:
            _finish(upstream_writer)
            for task in (answers, requests):
                task.cancel()
            await asyncio.gather(answers, requests, return_exceptions=True)


async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_BLOCK):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


async def _whole(reader: asyncio.StreamReader) -> bytes:
    data = await reader.read(_BLOCK)
    try:
        while more := await asyncio.wait_for(reader.read(_BLOCK), _QUIET):
            data += more
    except TimeoutError:
        pass
    return data


async def _say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes) -> None:
    await _whole(reader)
    writer.write(data)
    await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
        # Closing with bytes of the request unread would turn the answer into a reset.
        while await reader.read(_BLOCK):
            pass


def _half(answer: bytes) -> int:
    head, end, body = answer.partition(b"\r\n\r\n")
    return len(head + end) + len(body) // 2 if end else len(answer) // 2


def _finish(writer: asyncio.StreamWriter) -> None:
    writer.close()


def _abort(writer: asyncio.StreamWriter) -> None:
    raw: socket.socket | None = writer.get_extra_info("socket")
    if raw is not None and raw.fileno() >= 0:
        # Lingering for no time turns the end of a connection into a reset.
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def _bound(port: int) -> socket.socket:
    """A socket that holds the port and shares it with another of ours: bound, it refuses until it listens."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(("127.0.0.1", port))
    return sock
