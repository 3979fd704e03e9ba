"""Background work of a driver: a thread that renews something ahead of its end."""

from __future__ import annotations

import contextlib
import queue
import threading
import weakref
from collections.abc import Callable
from typing import Final

from kmsbridge import forks

_CLOSING: Final = 2.0
"""Seconds for which `close` waits for a step under way."""


class Background:
    """Calls `step()` on a daemon thread of its own, again and again, for as long as there is something to do.

    `step` is a bound method. It returns the seconds until it is to be called again, or None where nothing is left
    to do: then the thread ends, until `wake` starts another. What can fail it catches itself; an exception ends
    the thread. The thread does not keep the method's object alive, and ends with it. In a forked child it is
    closed: what the parent holds is renewed by the parent.
    """

    def __init__(self, name: str, step: Callable[[], float | None]) -> None:
        self._name = f"kmsbridge-{name}"
        # A SimpleQueue, unlike an Event, may be put to in the midst of waiting for it: a finalizer does so.
        self._wakes: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._step = weakref.WeakMethod(step, lambda _: self._wakes.put(None))
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False
        forks.watch(self)

    @property
    def thread(self) -> threading.Thread | None:
        """The thread; None where nothing is to be done."""
        return self._thread

    def wake(self) -> bool:
        """Have `step` called now. False where there is no thread for it: after `close`, or the system gives none."""
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
        """End the thread, and wait up to 2 s for a step under way; may be repeated, and called by a step."""
        with self._lock:
            self._closed, thread = True, self._thread
        self._wakes.put(None)
        if thread is not None and thread is not threading.current_thread():
            thread.join(_CLOSING)

    def after_fork(self) -> None:
        """The thread is not in the child, and whoever held the lock may not be either."""
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
        """Whether nobody has woken it since; decided under the lock that `wake` takes."""
        with self._lock:
            done = self._closed or self._step() is None or self._wakes.empty()
            if done:
                self._thread = None
            return done

    def _forget_wakes(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                self._wakes.get_nowait()
