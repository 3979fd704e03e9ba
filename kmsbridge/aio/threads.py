"""What waits is done on threads: calls to key services, one for all who want it, and files."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Hashable

from kmsbridge.cipher.files import Progress
from kmsbridge.datakeys import CachedKey, Flight, SingleFlight


async def fetch(
    flights: SingleFlight[CachedKey],
    name: Hashable,
    cached: Callable[[], CachedKey | None],
    load: Callable[[], CachedKey],
) -> CachedKey:
    """The data key, loaded on a thread where it is not at hand.

    The load belongs to no task: when the task that began it is cancelled, the others still get it.
    """
    loop = asyncio.get_running_loop()
    while (entry := cached()) is None:
        flight, leads = flights.join(name)
        raised = _lead_on_thread(loop, flights, name, flight, load) if leads else []
        landed = loop.create_future()
        flight.when_done(lambda landed=landed: _set(loop, landed))  # type: ignore[misc]
        await landed
        if raised:
            raise raised.pop()
        flight.outcome()
    return entry


def _lead_on_thread(
    loop: asyncio.AbstractEventLoop,
    flights: SingleFlight[CachedKey],
    name: Hashable,
    flight: Flight[CachedKey],
    load: Callable[[], CachedKey],
) -> list[BaseException]:
    """Lead the flight; the list will have what the load raised, by the time that it has landed."""
    raised: list[BaseException] = []

    def noting() -> CachedKey:
        try:
            return load()
        except BaseException as error:
            raised.append(error)
            raise

    def lead() -> None:
        with contextlib.suppress(BaseException):  # it is in the list
            flights.lead(name, flight, noting)

    try:
        loop.run_in_executor(None, lead)
    except BaseException:
        flights.give_up(name, flight)
        raise
    return raised


def _set(loop: asyncio.AbstractEventLoop, landed: asyncio.Future[None]) -> None:
    def once() -> None:
        if not landed.done():
            landed.set_result(None)

    with contextlib.suppress(RuntimeError):  # the loop of a waiter that is gone
        loop.call_soon_threadsafe(once)


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

    work = asyncio.ensure_future(asyncio.to_thread(operation, tick))
    try:
        await asyncio.shield(work)
    except asyncio.CancelledError:
        stop.set()
        with contextlib.suppress(Exception):
            await work
        raise
