"""A TCP proxy on the loopback interface that misbehaves on demand."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Any, Self

from kmsbridge_testing.faults.streams import (
    BLOCK,
    abort,
    bound,
    forward,
    half_of,
    say,
    say_for_ever,
    swallow,
    whole,
)

_Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
_End = Callable[[asyncio.StreamWriter], None]


class FaultProxy:
    """A TCP proxy in front of the service at `host`:`port`, which passes everything on until it gets a fault.

    Clients connect to `address`. A fault applies to all connections from then on and ends the open ones, until `heal` or the next fault.
    `connections` is the number of connections since the last of these calls. With `tls` clients connect by TLS, which
    the proxy terminates. The proxy runs in a thread until `close`.
    """

    def __init__(self, host: str, port: int, *, tls: ssl.SSLContext | None = None) -> None:
        self._target, self._tls = (host, port), tls
        self._reserved = bound(0)
        self.address: tuple[str, int] = self._reserved.getsockname()
        self.connections = 0
        self._behaviour: _Behaviour = self._pass
        self._end: _End = abort
        self._open: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._silent: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="FaultProxy", daemon=True)
        self._thread.start()
        self.heal()

    def heal(self) -> None:
        """End the fault: pass everything on."""
        self._become(self._pass)

    def refuse(self) -> None:
        """Refuse connections. The port stays reserved."""
        self._become(None)

    def reset(self) -> None:
        """Reset each connection before reading a byte."""
        self._become(self._reset)

    def reset_after(self, count: int) -> None:
        """Pass requests on, and reset the connection after `count` bytes of the answer."""
        self._become(lambda reader, writer: self._answered(reader, writer, count, abort))

    def hang(self) -> None:
        """Read requests and answer nothing."""
        self._become(self._hang)

    def slow(self, bytes_per_second: float) -> None:
        """Pass answers on one byte at a time."""
        self._become(lambda reader, writer: self._trickle(reader, writer, 1 / bytes_per_second))

    def delay(self, seconds: float) -> None:
        """Pass requests on, and pass each answer on `seconds` after it arrived."""
        self._become(lambda reader, writer: self._late(reader, writer, seconds))

    def half(self) -> None:
        """Pass on half of an answer, or half of its body if it looks like HTTP, and close the connection."""
        self._become(lambda reader, writer: self._answered(reader, writer, None, _close))

    def reset_amid(self) -> None:
        """Pass on half of an answer, and reset the connection."""
        self._become(lambda reader, writer: self._answered(reader, writer, None, abort))

    def stall(self) -> None:
        """Pass on half of an answer, and keep the connection open without sending the rest."""
        self._become(lambda reader, writer: self._answered(reader, writer, None, None))

    def end(self) -> None:
        """Read a request and close the connection without an answer."""
        self.answer(b"")

    def answer(self, data: bytes, *, then_end: bool = True) -> None:
        """Read a request and answer with `data`; then close the connection, or keep it open if not `then_end`."""
        self._become(lambda reader, writer: say(reader, writer, data, then_end=then_end))

    def endless(self, head: bytes, block: bytes) -> None:
        """Read a request and answer with `head` and then `block` repeatedly, up to 256 MiB."""
        self._become(lambda reader, writer: say_for_ever(reader, writer, head, block))

    def drop(self) -> None:
        """Close the open connections properly; pass everything on for new ones."""
        self._become(self._pass, _close)

    def vanish(self) -> None:
        """Send nothing more on the open connections; pass everything on for new ones."""
        asyncio.run_coroutine_threadsafe(self._fall_silent(), self._loop).result()

    def close(self) -> None:
        """End the proxy and its connections. May be called twice."""
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

    def _become(self, behaviour: _Behaviour | None, end: _End = abort) -> None:
        asyncio.run_coroutine_threadsafe(self._switch(behaviour, end), self._loop).result()

    async def _switch(self, behaviour: _Behaviour | None, end: _End) -> None:
        self._behaviour, self._end = behaviour or self._reset, end
        if behaviour is None and self._server is not None:
            # Closing the server now would lose connections that it accepted and did not yet pass to `_serve`.
            self._loop.remove_reader(self._server.sockets[0].fileno())
        ended = list(self._open.values())
        for task in list(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)
        for writer in ended:
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        if behaviour is None and self._server is not None:
            await self._rest()
            self._server.close()
            await self._server.wait_closed()
            self._server = None
        elif behaviour is not None and self._server is None:
            listening = bound(self.address[1])
            self._server = await asyncio.start_server(self._serve, sock=listening, ssl=self._tls)
        self.connections = 0

    async def _rest(self) -> None:
        """Wait until connections that were already accepted are served, which resets them."""
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._open[task] = writer
        try:
            await self._behave(task, reader, writer)
        except OSError:
            abort(writer)
        except asyncio.CancelledError:
            self._end(writer)
        finally:
            writer.close()
            self._silent.discard(task)
            del self._open[task]

    async def _behave(
        self, task: asyncio.Task[None], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            await self._behaviour(reader, writer)
        except asyncio.CancelledError:
            if task not in self._silent:
                raise
            await swallow(reader)

    async def _fall_silent(self) -> None:
        self._silent.update(self._open)
        for task in self._open:
            task.cancel()
        self._behaviour, self.connections = self._pass, 0

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def back(upstream: asyncio.StreamReader) -> None:
            while data := await upstream.read(BLOCK):
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
            while answer := await whole(upstream):
                await asyncio.sleep(pause)
                writer.write(answer)
                await writer.drain()

        await self._connected(reader, back)

    async def _answered(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        count: int | None,
        end: _End | None,
    ) -> None:
        async def back(upstream: asyncio.StreamReader) -> None:
            answer = await whole(upstream)
            writer.write(answer[: half_of(answer) if count is None else count])
            await writer.drain()
            if end is None:
                await asyncio.Event().wait()  # until the fault is over
            else:
                end(writer)

        await self._connected(reader, back)

    async def _reset(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        abort(writer)

    async def _hang(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await swallow(reader)

    async def _connected(
        self,
        reader: asyncio.StreamReader,
        back: Callable[[asyncio.StreamReader], Coroutine[Any, Any, None]],
    ) -> None:
        """Pass requests on to the service until `back`, which gets the service's stream of answers, returns."""
        upstream_reader, upstream_writer = await asyncio.open_connection(*self._target)
        answers = asyncio.create_task(back(upstream_reader))
        requests = asyncio.create_task(forward(reader, upstream_writer))
        try:
            await answers
        finally:
            upstream_writer.close()
            for task in (answers, requests):
                task.cancel()
            await asyncio.gather(answers, requests, return_exceptions=True)


def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
