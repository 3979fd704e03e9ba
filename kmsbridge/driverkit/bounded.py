"""A timeout for work that has none of its own: a call of a C library, a login, fetching credentials.

The work runs on daemon threads, so that a call that hangs does not keep the process from ending. The calls of a
driver themselves do not need this, because the library limits them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from kmsbridge import forks
from kmsbridge.driverkit.deadline import within
from kmsbridge.errors import ClosedError
from kmsbridge.threads import MAX_PARALLEL, Outcome, Workers

__all__ = ["BoundedCalls", "Outcome", "SharedCall"]

T = TypeVar("T")


class BoundedCalls:
    """Runs work on up to `limit` threads, and stops waiting for it at a timeout. Safe for threads.

    Work that hangs occupies its thread until it ends. If all threads are occupied, a call waits for a free one
    within its own timeout. `name` appears in the names of the threads.
    """

    def __init__(self, name: str, limit: int = MAX_PARALLEL) -> None:
        self._workers = Workers(name, limit)
        self._closed = False

    def call(self, work: Callable[[], T], timeout: float) -> T:
        """Return what `work()` returns, or raise what it raises; raise `TimeoutError` after `timeout` seconds.

        Work that has not begun by then is never begun. Work that has begun continues, and its result is dropped.
        Inside `work`, `deadline.left()` returns the remaining time. Raises `ClosedError` after `close`.
        """
        if self._closed:
            raise ClosedError("the driver is closed", remedy="open a new one")
        outcome = self._workers.begin(_within(timeout, work))
        try:
            return _result(outcome, timeout)
        finally:
            outcome.wanted = False

    def close(self) -> None:
        """Let each thread end when its work does, without waiting. May be called twice."""
        self._closed = True
        self._workers.close()


class SharedCall(Generic[T]):
    """Work whose result many threads need, such as a login: it runs once at a time, and all wait for the same run.

    A caller whose timeout ends leaves the work running, and the next caller can use its result. `patience` is the
    time of the work itself in seconds, independent of the callers' timeouts: inside `work`, `deadline.left()`
    returns what remains of it. In a forked child process no work is in progress.
    """

    def __init__(self, name: str, work: Callable[[], T], *, patience: float = 30.0) -> None:
        self._name, self._work = name, _within(patience, work)
        self._lock = threading.Lock()
        self._running: Outcome[T] | None = None
        forks.watch(self)

    def begin(self) -> Outcome[T]:
        """Return the run in progress, starting one if there is none. Does not wait."""
        with self._lock:
            if self._running is None or self._running.ended:
                workers = Workers(self._name, 1)
                self._running = workers.begin(self._work)
                workers.close()
            return self._running

    def wait(self, timeout: float) -> T:
        """Return what the work returns, or raise what it raises; raise `TimeoutError` after `timeout` seconds.

        After a `TimeoutError` the work continues.
        """
        return _result(self.begin(), timeout)

    def after_fork(self) -> None:
        """Forget the run in progress, which continues in the parent only."""
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
