"""Work that is done on other threads and waited for.

Everything here is reentrant: a signal handler, a logging handler or a finalizer may use it at any time, also
on a thread that it interrupted within this module. So nothing here holds a lock that such code could need.
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

MAX_PARALLEL: Final = 16
"""The most threads that `in_parallel` uses; they spend most of their time waiting for the network."""

_GRACE: Final = 1.0
"""Seconds that work gets to raise its own error after its deadline, before `in_parallel` raises one."""

IDLE: Final = 10.0
"""Seconds after which an idle thread ends."""


class Outcome(Generic[T]):
    """The future result, or exception, of some work. It is set once; any number of threads may wait for it."""

    __slots__ = ("_callbacks", "_error", "_result", "ended", "wanted")

    def __init__(self) -> None:
        self.ended = False
        self.wanted = True
        """Whether a thread still waits for the result. Work that has not begun is skipped once this is False."""
        self._result: T | None = None
        self._error: BaseException | None = None
        self._callbacks: list[Callable[[], None]] = []

    def set(self, result: T | None, error: BaseException | None = None) -> None:
        """Set the result or the exception. Only the first call has an effect."""
        if not self.ended:
            self._result, self._error = result, error
            self.ended = True
        self._run_callbacks()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the work has ended, at most `timeout` seconds; return whether it has ended.

        An exception that a signal handler raises on the waiting thread is passed on unchanged.
        """
        if not self.ended:
            lock = _thread.allocate_lock()
            lock.acquire()
            self.when_ended(lock.release)
            lock.acquire(timeout=-1 if timeout is None else min(max(timeout, 0.0), threading.TIMEOUT_MAX))
        return self.ended

    def when_ended(self, callback: Callable[[], None]) -> None:
        """Call `callback()` once the work has ended, on any thread; at once if it has ended already."""
        self._callbacks.append(callback)
        if self.ended:
            self._run_callbacks()

    @property
    def error(self) -> BaseException | None:
        """The exception that the work raised; None if it raised none or has not ended."""
        return self._error

    def get(self) -> T:
        """Return the result of work that has ended, or raise the exception that it raised."""
        if self._error is not None:
            try:
                raise self._error
            finally:
                del self
        return self._result  # type: ignore[return-value]

    def _run_callbacks(self) -> None:
        # Several threads can be here at once: `pop` hands each callback to one of them.
        while self._callbacks:
            try:
                callback = self._callbacks.pop()
            except IndexError:
                return
            callback()


Job = tuple[Callable[[], Any], contextvars.Context, Outcome[Any]]


class Workers:
    """A pool of at most `limit` daemon threads, which start when there is work and end when they are idle.

    They are daemon threads because one that hangs in a provider's library must not keep the process from ending.
    Work sees the context variables of the code that submitted it. A forked child starts without any of the threads.
    """

    def __init__(self, name: str, limit: int) -> None:
        self._name = f"kmsbridge-{name}"
        self._limit = limit
        self.after_fork()
        forks.watch(self)

    def begin(self, work: Callable[[], T]) -> Outcome[T]:
        """Run `work()` on a thread and return its outcome.

        Where no thread can be started, as at the interpreter's exit, `work()` runs before this returns.
        """
        outcome: Outcome[T] = Outcome()
        # First the job, then a thread for it: a thread that finds no job may end.
        self._jobs.put((work, contextvars.copy_context(), outcome))
        self._grow()
        return outcome

    def close(self) -> None:
        """Make the threads end after the submitted work. Does not wait for them."""
        self._closed = True
        for _ in range(self._limit):
            self._jobs.put(None)

    def after_fork(self) -> None:
        """Start with no threads and no work in the child."""
        self._closed = False
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        # Tokens: one for each thread that waits for work, and one for each that may still be started.
        self._idle: list[None] = []
        self._permits: list[None] = [None] * self._limit

    def _grow(self) -> None:
        """Start a thread if there are more jobs than idle threads."""
        try:
            if self._jobs.qsize() <= len(self._idle) or not _take_token(self._permits):
                return
            start_thread(self._run, self._name)
        except BaseException as error:
            # After an interrupt there is at worst a token too many, which lets one thread more be started.
            self._permits.append(None)
            if not isinstance(error, RuntimeError):
                raise
            _run_all(self._jobs)

    def _run(self) -> None:
        jobs, idle, permits = self._jobs, self._idle, self._permits
        while True:
            while (job := self._next(jobs, idle)) is not None:
                self._grow()  # for jobs submitted while this thread was still counted as idle
                _run_job(job)
                del job  # and with it the result
            permits.append(None)
            # A job submitted before that found no permit and no idle thread: this thread must run it.
            if self._closed or jobs.empty() or not _take_token(permits):
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
            _take_token(idle)


def start_thread(run: Callable[[], None], name: str) -> None:
    """Run `run()` on a new daemon thread. Raise `RuntimeError` where no thread can be started.

    An interrupt leaves either a thread that runs or none. `Thread.start`, which waits for the new thread, can leave
    one that hangs; so it is called on a thread of its own, where no signal is handled.
    """
    thread = threading.Thread(target=run, name=name, daemon=True)

    def start() -> None:
        try:
            thread.start()
        except RuntimeError:  # there cannot be one thread more
            run()

    _thread.start_new_thread(start, ())


def _take_token(tokens: list[None]) -> bool:
    try:
        tokens.pop()
    except IndexError:
        return False
    return True


def _run_all(jobs: queue.SimpleQueue[Job | None]) -> None:
    with contextlib.suppress(queue.Empty):
        while (job := jobs.get_nowait()) is not None:
            _run_job(job)


def _run_job(job: Job) -> None:
    work, context, outcome = job
    if not outcome.wanted:
        return
    try:
        result = context.run(work)
    except BaseException as error:  # noqa: BLE001 - the waiting thread raises it
        outcome.set(None, error)
    else:
        outcome.set(result)


def in_parallel(work: Callable[[A], T], items: Sequence[A], deadline: Deadline | None = None) -> list[T]:
    """Run `work` for every item, at most 16 at a time, and return the results in the order of the items.

    If any fails, the first error in the order of the items is raised once all have ended. An exception that a
    signal handler raises on the waiting thread is raised at once, and the work is not waited for. Work that has not
    ended a little after `deadline` is abandoned with `KmsTimeout`.
    """
    if not items:
        return []
    if len(items) == 1:
        return [work(items[0])]
    workers = Workers("parallel", min(len(items), MAX_PARALLEL))
    outcomes: list[Outcome[T]] = []
    try:
        outcomes.extend(workers.begin(functools.partial(work, item)) for item in items)
        for outcome in outcomes:
            if not outcome.wait(None if deadline is None else 1.2 * deadline.left() + _GRACE):
                raise KmsTimeout(
                    "the calls to several keys did not end before the deadline",
                    remedy="check the network to the key services, and try again",
                )
    except BaseException:
        for outcome in outcomes:
            outcome.wanted = False
        raise
    finally:
        workers.close()
    return [outcome.get() for outcome in outcomes]
