"""A thread that drops data keys when they are too old, though nobody asks for them any more."""

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
"""Seconds for which a data key may lie in memory after its time, beside those that the sweep itself takes."""


class Swept(Protocol):
    """Something that holds data keys."""

    def sweep(self) -> float | None:
        """Drop those that are too old; gives the seconds until the next will be, None where there is none."""


class Sweeper:
    """One thread for all caches of the process. It runs while any of them holds a data key."""

    def __init__(self) -> None:
        self._caches: dict[int, weakref.ref[Swept]] = {}
        self._pauses: dict[int, float] = {}
        self.after_fork()
        forks.watch(self)

    def keep_swept(self, cache: Swept, max_age: float) -> None:
        """Have `cache`, whose data keys live for `max_age` seconds, swept for as long as it holds any."""
        number = id(cache)
        if number not in self._caches:
            self._pauses[number] = min(max_age * SELDOM, AT_MOST)
            self._caches[number] = weakref.ref(cache, lambda _: self._forget(number))
        if time.monotonic() + max_age < self._next_look:
            self.look_again()
        self._start()

    def look_again(self) -> None:
        """Have the thread see what there is to do now."""
        self._wake.put(None)

    def after_fork(self) -> None:
        """The thread is not in the child, nor are data keys."""
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        # Whoever pops it runs the thread, and puts it back.
        self._permit: list[None] = [None]
        self._next_look = math.inf

    def _forget(self, number: int) -> None:
        self._caches.pop(number, None)
        self._pauses.pop(number, None)

    def _start(self) -> None:
        with contextlib.suppress(IndexError, RuntimeError):  # it runs; or the interpreter is ending
            self._permit.pop()
            try:
                threading.Thread(target=self._run, name="kmsbridge-sweep", daemon=True).start()
            except BaseException:
                self._permit.append(None)
                raise

    def _run(self) -> None:
        wake, permit = self._wake, self._permit
        while (pause := self._sweep_all()) is not None:
            self._next_look = time.monotonic() + pause
            with contextlib.suppress(queue.Empty):
                wake.get(timeout=pause)
        permit.append(None)
        if self._sweep_all() is not None:  # filled between the last look and the permit's return
            self._start()

    def _sweep_all(self) -> float | None:
        """Seconds until something will be too old; None where there is nothing at all."""
        self._next_look = math.inf  # so that what comes during this look leads to another
        lefts = [self._sweep(number, cache) for number, cache in list(self._caches.items())]
        return min((left for left in lefts if left is not None), default=None)

    def _sweep(self, number: int, reference: weakref.ref[Swept]) -> float | None:
        cache = reference()
        if cache is None:
            return None
        left: float | None = 0.0
        with contextlib.suppress(
            Exception
        ):  # a sink of the audit trail that fails: the next operation is told
            left = cache.sweep()
        return None if left is None else max(left, self._pauses.get(number, AT_MOST))


sweeper: Final = Sweeper()
