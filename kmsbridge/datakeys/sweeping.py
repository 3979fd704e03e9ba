"""A thread that drops data keys when they are too old, also those that are not used any more."""

from __future__ import annotations

import contextlib
import math
import queue
import threading
import time
import weakref
from typing import Final, Protocol

from kmsbridge import forks

SELDOM: Final = 0.05
"""A cache is swept at most this often, as a part of the life of its data keys."""
AT_MOST: Final = 5.0
"""Seconds for which a data key may stay in memory after its time, beside those that the sweep itself
takes."""


class Swept(Protocol):
    """Something that holds data keys."""

    def sweep(self) -> float | None:
        """Drop those that are too old. Return the seconds until the next one is; None where none is left."""


class Sweeper:
    """One thread for all caches of the process. It runs while any of them holds a data key."""

    def __init__(self) -> None:
        self._caches: dict[int, weakref.ref[Swept]] = {}
        self._pauses: dict[int, float] = {}
        self.after_fork()
        forks.watch(self)

    def keep_swept(self, cache: Swept, max_age: float) -> None:
        """Sweep `cache`, whose data keys live for `max_age` seconds, for as long as it holds any."""
        number = id(cache)
        known = self._caches.get(number)
        if known is None or known() is not cache:
            self._pauses[number] = min(max_age * SELDOM, AT_MOST)
            self._caches[number] = weakref.ref(cache)
        if time.monotonic() + max_age < self._next_look:
            self.look_again()
        self._start()

    def look_again(self) -> None:
        """Wake the thread, so that it looks at every cache now."""
        self._wake.put(None)

    def after_fork(self) -> None:
        """Begin anew: a forked child has neither the thread nor data keys."""
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._next_look = math.inf

    def _start(self) -> None:
        # Two that start at once make two threads, which end as one does: no interrupt can leave none.
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="kmsbridge-sweep", daemon=True)
            with contextlib.suppress(RuntimeError):  # the interpreter is ending
                self._thread.start()

    def _run(self) -> None:
        wake = self._wake
        while (pause := self._sweep_all()) is not None:
            self._next_look = time.monotonic() + pause
            with contextlib.suppress(queue.Empty):
                wake.get(timeout=pause)
        self._thread = None
        if self._sweep_all() is not None:  # filled between the last look and that
            self._start()

    def _sweep_all(self) -> float | None:
        """Sweep every cache. Return the seconds until a data key is too old; None where there are none."""
        self._next_look = math.inf  # so that what comes during this look leads to another
        lefts = [self._sweep(number, cache) for number, cache in list(self._caches.items())]
        return min((left for left in lefts if left is not None), default=None)

    def _sweep(self, number: int, reference: weakref.ref[Swept]) -> float | None:
        cache = reference()
        if cache is None:
            # Another may have its number by now.
            if self._caches.get(number) is reference:
                self._caches.pop(number, None)
            return None
        left: float | None = 0.0
        with contextlib.suppress(
            Exception
        ):  # a sink of the audit trail that fails: the next operation is told
            left = cache.sweep()
        return None if left is None else max(left, self._pauses.get(number, AT_MOST))


sweeper: Final = Sweeper()
