"""Runs on threads what would block the event loop: calls to key services, shared by all who wait, and files."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
from collections.abc import Callable, Hashable
from typing import Any, Final, TypeVar

from kmsbridge.cipher.files import Progress
from kmsbridge.datakeys import Flight, SingleFlight
from kmsbridge.threads import Outcome, Workers

T = TypeVar("T")

# Not the event loop's own executor: all of its threads may be waiting for the load that would stand in its queue.
_loaders: Final = Workers("load", 32)


async def shared_load(flights: SingleFlight[T], name: Hashable, load: Callable[[], T]) -> T:
    """Return the result of `load()`, done on a thread, once for all who want it.

    The load belongs to no task: when the task that began it is cancelled, the others still get it. Whoever
    began it gets what it raised, whatever that is; the others only a `KmsBridgeError`.
    """
    while True:
        flight, leads = flights.join(name)
        if leads:
            return await _lead(flights, name, flight, load)
        await _ended(flight.outcome)
        result = flight.result()
        if result is not None:
            return result


async def _lead(flights: SingleFlight[T], name: Hashable, flight: Flight[T], load: Callable[[], T]) -> T:
    try:
        led = _loaders.begin(functools.partial(flights.lead, name, flight, load))
    except BaseException:
        flights.give_up(name, flight)
        raise
    await _ended(led)
    return led.get()


async def _ended(outcome: Outcome[T]) -> None:
    """Wait until it has ended."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()

    def tell() -> None:
        with contextlib.suppress(RuntimeError):  # the loop of a waiter that is gone
            loop.call_soon_threadsafe(ended.set)

    outcome.when_ended(tell)
    await ended.wait()


async def to_its_end(
    call: Callable[..., T], *args: Any, when_cancelled: Callable[[], None] = lambda: None
) -> T:
    """Return the result of `call(*args)`, done on a thread.

    When cancelled, call `when_cancelled` and wait for the end of the call all the same.
    """
    work = asyncio.ensure_future(asyncio.to_thread(call, *args))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        when_cancelled()
        while not work.done():  # cancelled again, perhaps
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await asyncio.shield(work)
        with contextlib.suppress(Exception):
            work.result()  # an interrupt that ended it comes out instead
        raise


class _Stopped(Exception):
    """Raised on the thread of an operation whose task was cancelled."""


async def stoppable(operation: Callable[[Progress], None], progress: Progress | None) -> None:
    """Run `operation` on a thread; when cancelled, stop it at its next step and wait for that."""
    loop = asyncio.get_running_loop()
    stop = threading.Event()

    def tick(done: int) -> None:
        if stop.is_set():
            raise _Stopped
        if progress is not None:
            loop.call_soon_threadsafe(progress, done)

    await to_its_end(operation, tick, when_cancelled=stop.set)
