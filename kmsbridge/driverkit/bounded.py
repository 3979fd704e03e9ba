"""Work that knows no timeout, waited for only so long: a call of a C library, a login, fetching credentials.

It is done on daemon threads: what hangs in a library does not keep the process from ending. Calls of the driver
itself need none of this, for the library bounds those.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from kmsbridge import forks
from kmsbridge.driverkit.deadline import within
from kmsbridge.errors import ClosedError
from kmsbridge.threads import AT_ONCE, Outcome, Workers

__all__ = ["BoundedCalls", "Outcome", "SharedCall"]

T = TypeVar("T")


class BoundedCalls:
    """Calls that are given up at their timeout, at most `limit` of them at once. Safe for threads.

    One that hangs keeps its thread until it ends; further calls wait for a free one within their own timeout.
    """

    def __init__(self, name: str, limit: int = AT_ONCE) -> None:
        self._workers = Workers(name, limit)
        self._closed = False

    def call(self, work: Callable[[], T], timeout: float) -> T:
        """Return what `work()` returns, or raise what it raises; `TimeoutError` after `timeout` seconds.

        Work that was not begun by then never is. Work that was goes on, and what it gives is dropped.
        `deadline.left` tells it how long it is waited for. Raises `ClosedError` after `close`.
        """
        if self._closed:
            raise ClosedError("the driver is closed", remedy="open a new one")
        outcome = self._workers.begin(_within(timeout, work))
        try:
            return _result(outcome, timeout)
        finally:
            outcome.wanted = False

    def close(self) -> None:
        """Let the threads end when their calls do; waits for none. May be repeated."""
        self._closed = True
        self._workers.close()


class SharedCall(Generic[T]):
    """One piece of work that many threads need, done once at a time: who asks meanwhile waits for the same.

    What comes too late for one call has been done for the next. `patience` is the work's own time in seconds, which
    `deadline.left` tells it, however long those who wait for it have. In a forked child nothing is under way.
    """

    def __init__(self, name: str, work: Callable[[], T], *, patience: float = 30.0) -> None:
        self._name, self._work = name, _within(patience, work)
        self._lock = threading.Lock()
        self._running: Outcome[T] | None = None
        forks.watch(self)

    def begin(self) -> Outcome[T]:
        """Return the work that is under way, begun now if there is none; waits for nothing."""
        with self._lock:
            if self._running is None or self._running.ended:
                workers = Workers(self._name, 1)
                self._running = workers.begin(self._work)
                workers.close()
            return self._running

    def wait(self, timeout: float) -> T:
        """Return what the work returns, or raise what it raises; `TimeoutError` after `timeout` seconds.

        The work then goes on.
        """
        return _result(self.begin(), timeout)

    def after_fork(self) -> None:
        """The work that was under way goes on in the parent alone."""
        self._lock = threading.Lock()
        self._running = None


def _within(timeout: float, work: Callable[[], T]) -> Callable[[], T]:
    def bounded() -> T:
        with within(timeout):
            return work()

    return bounded


def _result(outcome: Outcome[T], timeout: float) -> T:
    if not outcome.wait(timeout):
        raise TimeoutError
    return outcome.get()
