"""A thread that drops data keys when they are too old, also those that are not used any more."""

from __future__ import annotations

import contextlib
import math
import queue
import time
import weakref
from typing import Final, Protocol

from kmsbridge import forks
from kmsbridge.threads import Outcome, start_thread

PAUSE: Final = 0.5
"""Seconds between two looks, and so the most for which a data key may stay in memory after its time, beside those
that a look takes."""

_SIZES: Final = range(64, 513, 16)
_OF_EACH: Final = 200


class Swept(Protocol):
    """Something that holds data keys."""

    def sweep(self) -> float | None:
        """Drop those that are too old. Return the seconds until the next one is; None where none is left."""


class Sweeper:
    """One thread for all caches of the process. It runs while any of them holds a data key."""

    def __init__(self) -> None:
        self._caches: dict[int, weakref.ref[Swept]] = {}
        self.after_fork()
        forks.watch(self)

    def keep_swept(self, cache: Swept, max_age: float) -> None:
        """Sweep `cache`, whose data keys live for `max_age` seconds, for as long as it holds any."""
        number = id(cache)
        known = self._caches.get(number)
        if known is None or known() is not cache:
            self._caches[number] = weakref.ref(cache)
        if time.monotonic() + max(max_age, PAUSE) < self._next_look:
            self.look_again()
        self._start()

    def look_again(self) -> None:
        """Wake the thread, so that it looks at every cache now."""
        self._wake.put(None)

    def after_fork(self) -> None:
        """Begin anew: a forked child has neither the thread nor data keys."""
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._last_run: Outcome[None] = Outcome()
        self._last_run.set(None)
        self._next_look = math.inf

    def _start(self) -> None:
        # Two that start at once make two threads, which end as one does: no interrupt can leave none.
        if self._last_run.ended:
            run: Outcome[None] = Outcome()
            with contextlib.suppress(RuntimeError):  # the interpreter is ending
                start_thread(lambda: self._run(run), "kmsbridge-sweep")
                self._last_run = run

    def _run(self, run: Outcome[None]) -> None:
        wake = self._wake
        try:
            while (pause := self._sweep_all()) is not None:
                self._next_look = time.monotonic() + pause
                with contextlib.suppress(queue.Empty):
                    wake.get(timeout=pause)
        finally:
            run.set(None)
        if self._sweep_all() is not None:  # filled between the last look and that
            self._start()

    def _sweep_all(self) -> float | None:
        """Sweep every cache. Return the seconds until the next look; None where there are no data keys."""
        self._next_look = math.inf  # so that what comes during this look leads to another
        lefts = [self._sweep(number, cache) for number, cache in list(self._caches.items())]
        _fill_free_memory()
        left = min((left for left in lefts if left is not None), default=None)
        return None if left is None else max(left, PAUSE)

    def _sweep(self, number: int, reference: weakref.ref[Swept]) -> float | None:
        cache = reference()
        if cache is None:
            # Another may have its number by now.
            if self._caches.get(number) is reference:
                self._caches.pop(number, None)
            return None
        with contextlib.suppress(
            Exception
        ):  # a sink of the audit trail that fails: the next operation is told
            return cache.sweep()
        return 0.0


def _fill_free_memory() -> None:
    """Overwrite, in part, what is free of Python's own memory for small objects.

    The packages that talk to key services decode their answers to texts, which cannot be overwritten when they are let
    go of. What was freed last is taken first: in a process that rests, it is these.
    """
    for size in _SIZES:
        blocks = [bytes(size - 33) for _ in range(_OF_EACH)]
        del blocks


sweeper: Final = Sweeper()
