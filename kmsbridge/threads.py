"""Work that is done on other threads, and waited for.

Nothing here takes a lock that its holder could be interrupted with: a signal handler, a logging handler
or a finalizer may use all of it at any time, also on a thread that is in the midst of using it.
"""

from __future__ import annotations

import _thread
import contextlib
import contextvars
import functools
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, TypeVar

from kmsbridge import forks
from kmsbridge.clock import Deadline
from kmsbridge.errors import KmsTimeout

A = TypeVar("A")
T = TypeVar("T")

AT_ONCE: Final = 16
"""The most threads for one piece of work; each waits for the network most of the time."""

_GRACE: Final = 1.0
"""Seconds for what has a deadline of its own to tell of it."""

IDLE: Final = 10.0
"""Seconds after which a thread that had nothing to do ends."""


class Outcome(Generic[T]):
    """What some work will have given or raised: set once, waited for by any number of threads."""

    __slots__ = ("_callbacks", "_error", "_result", "ended", "wanted")

    def __init__(self) -> None:
        self.ended = False
        self.wanted = True
        """Whether anybody still waits for it; work that was not begun before this was unset never is."""
        self._result: T | None = None
        self._error: BaseException | None = None
        self._callbacks: list[Callable[[], None]] = []

    def set(self, result: T | None, error: BaseException | None = None) -> None:
        """Set it. Only the first time counts."""
        if not self.ended:
            self._result, self._error = result, error
            self.ended = True
        self._call_back()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait up to `timeout` seconds, or for as long as it takes; whether the work has ended.

        An exception that a signal handler raises on the waiting thread comes out of here, unchanged.
        """
        if not self.ended:
            lock = _thread.allocate_lock()
            lock.acquire()
            self.when_ended(lock.release)
            lock.acquire(timeout=-1 if timeout is None else min(max(timeout, 0.0), threading.TIMEOUT_MAX))
        return self.ended

    def when_ended(self, callback: Callable[[], None]) -> None:
        """Have `callback()` called once, on any thread, when `wait` will not wait."""
        self._callbacks.append(callback)
        if self.ended:
            self._call_back()

    @property
    def error(self) -> BaseException | None:
        """What the work raised, once it has ended."""
        return self._error

    def get(self) -> T:
        """The result of work that has ended; raises what it raised."""
        if self._error is not None:
            try:
                raise self._error
            finally:
                del self
        return self._result  # type: ignore[return-value]

    def _call_back(self) -> None:
        # Whoever sets and whoever came too late for that may both be here: `pop` gives each callback to one.
        while self._callbacks:
            try:
                callback = self._callbacks.pop()
            except IndexError:
                return
            callback()


Job = tuple[Callable[[], Any], contextvars.Context, Outcome[Any]]


class Workers:
    """At most `limit` daemon threads, started when they are needed, that end when they are not.

    Daemon threads, because one that hangs in a provider's library must not keep the process from ending.
    Work sees the context variables of whoever began it. A forked child starts with none of the threads.
    """

    def __init__(self, name: str, limit: int) -> None:
        self._name = f"kmsbridge-{name}"
        self._limit = limit
        self.after_fork()
        forks.watch(self)

    def begin(self, work: Callable[[], T]) -> Outcome[T]:
        """Have `work()` done; where no thread can be started, as at the interpreter's end, it is done here."""
        outcome: Outcome[T] = Outcome()
        # First the job, then somebody to do it: a thread that finds none may end.
        self._jobs.put((work, contextvars.copy_context(), outcome))
        self._grow()
        return outcome

    def close(self) -> None:
        """Let the threads end when they have done what was begun; does not wait for them."""
        self._closed = True
        for _ in range(self._limit):
            self._jobs.put(None)

    def after_fork(self) -> None:
        """The threads, and what waited for them, are not in the child."""
        self._closed = False
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        # Tokens: one for each thread that waits for work, and one for each that may still be started.
        self._idle: list[None] = []
        self._permits: list[None] = [None] * self._limit

    def _grow(self) -> None:
        """Start a thread where there is more to do than threads that wait for it."""
        if self._jobs.qsize() <= len(self._idle) or not _taken(self._permits):
            return
        try:
            threading.Thread(target=self._run, name=self._name, daemon=True).start()
        except RuntimeError:
            self._permits.append(None)
            _do_all(self._jobs)

    def _run(self) -> None:
        jobs, idle, permits = self._jobs, self._idle, self._permits
        while True:
            while (job := self._next(jobs, idle)) is not None:
                self._grow()  # for who came while this one was still counted as idle
                _do(job)
                del job  # and with it the result
            permits.append(None)
            # Who came before that found no permit and no idle thread, and counts on this one.
            if self._closed or jobs.empty() or not _taken(permits):
                return

    def _next(self, jobs: queue.SimpleQueue[Job | None], idle: list[None]) -> Job | None:
        with contextlib.suppress(queue.Empty):
            return jobs.get_nowait()
        if self._closed:
            return None
        idle.append(None)
        try:
            return jobs.get(timeout=IDLE)
        except queue.Empty:
            return None
        finally:
            _taken(idle)


def _taken(tokens: list[None]) -> bool:
    try:
        tokens.pop()
    except IndexError:
        return False
    return True


def _do_all(jobs: queue.SimpleQueue[Job | None]) -> None:
    with contextlib.suppress(queue.Empty):
        while (job := jobs.get_nowait()) is not None:
            _do(job)


def _do(job: Job) -> None:
    work, context, outcome = job
    if not outcome.wanted:
        return
    try:
        result = context.run(work)
    except BaseException as error:  # noqa: BLE001 - it is raised by whoever waits
        outcome.set(None, error)
    else:
        outcome.set(result)


def in_parallel(work: Callable[[A], T], items: Sequence[A], deadline: Deadline | None = None) -> list[T]:
    """`work` done for each item, at most 16 at a time, results in their order.

    If any fails, the first error in the order of items is raised when all have ended. An exception that
    comes to the waiting thread from outside is raised at once, and nobody waits for the rest. Work that keeps
    a deadline is given up on a little after it, with `KmsTimeout`.
    """
    if not items:
        return []
    if len(items) == 1:
        return [work(items[0])]
    workers = Workers("parallel", min(len(items), AT_ONCE))
    outcomes: list[Outcome[T]] = []
    try:
        outcomes.extend(workers.begin(functools.partial(work, item)) for item in items)
        for outcome in outcomes:
            if not outcome.wait(None if deadline is None else 1.2 * deadline.left() + _GRACE):
                raise KmsTimeout(
                    "the calls to several keys did not end in time",
                    remedy="check the network to the key services; the call may be repeated",
                )
    except BaseException:
        for outcome in outcomes:
            outcome.wanted = False
        raise
    finally:
        workers.close()
    return [outcome.get() for outcome in outcomes]
