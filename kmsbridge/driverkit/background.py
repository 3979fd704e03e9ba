"""Background work of a driver: a thread that renews something before it expires."""

from __future__ import annotations

import contextlib
import queue
import threading
import weakref
from collections.abc import Callable
from typing import Final

from kmsbridge import forks

_CLOSING: Final = 2.0
"""Seconds for which `close` waits for a step in progress."""


class Background:
    """A daemon thread that calls `step()` repeatedly, at times that `step` decides.

    `step` is a bound method. It returns the seconds until its next call, or None if nothing is left to do: the
    thread then ends, and `wake` starts another. `step` handles its own errors; an exception ends the thread. The
    thread holds only a weak reference to the method's object, and ends when that object is deleted. In a forked
    child process it is closed, because the parent goes on renewing.
    """

    def __init__(self, name: str, step: Callable[[], float | None]) -> None:
        self._name = f"kmsbridge-{name}"
        # Not an Event: a finalizer may run during `get` on the same thread, and only a SimpleQueue allows `put` then.
        self._wakes: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._step = weakref.WeakMethod(step, lambda _: self._wakes.put(None))
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False
        forks.watch(self)

    @property
    def thread(self) -> threading.Thread | None:
        """The running thread, or None if there is nothing to do."""
        return self._thread

    def wake(self) -> bool:
        """Have `step` called now, on a new thread if none is running.

        Return False if there is no thread: after `close`, or because the system cannot start one.
        """
        with self._lock:
            if self._closed:
                return False
            self._wakes.put(None)
            if self._thread is None or not self._thread.is_alive():
                thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread = None
                with contextlib.suppress(RuntimeError):
                    thread.start()
                    self._thread = thread
            return self._thread is not None

    def close(self) -> None:
        """End the thread, waiting up to 2 s for a step in progress. May be called twice, and by `step` itself."""
        with self._lock:
            self._closed, thread = True, self._thread
        self._wakes.put(None)
        if thread is not None and thread is not threading.current_thread():
            thread.join(_CLOSING)

    def after_fork(self) -> None:
        """Close it in the child, where neither the thread nor a thread that held the lock exists."""
        self._lock = threading.Lock()
        self._thread, self._closed = None, True

    def _run(self) -> None:
        while True:
            self._forget_wakes()
            step = None if self._closed else self._step()
            pause = step() if step is not None else None
            del step
            if pause is not None:
                with contextlib.suppress(queue.Empty):
                    self._wakes.get(timeout=min(max(pause, 0.0), threading.TIMEOUT_MAX))
            elif self._is_done():
                return

    def _is_done(self) -> bool:
        """Return whether the thread can end: closed, or not woken since. Holds the lock, so that no `wake` is lost."""
        with self._lock:
            done = self._closed or self._step() is None or self._wakes.empty()
            if done:
                self._thread = None
            return done

    def _forget_wakes(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                self._wakes.get_nowait()
