"""A clock for ages, deadlines of operations, and random pauses."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from typing import Final

_BOOTTIME: Final = getattr(time, "CLOCK_BOOTTIME", None)

age: Final[Callable[[], float]] = (
    time.monotonic if _BOOTTIME is None else functools.partial(time.clock_gettime, _BOOTTIME)
)
"""Return the seconds since some fixed moment. Measures the age of data keys, also while the machine sleeps.

On Linux this is CLOCK_BOOTTIME; elsewhere `time.monotonic`, which on some systems stops during sleep.
"""


def jitter(least: float, most: float) -> float:
    """Return a random number of seconds from `least` to `most`, so that waiting threads do not all retry at once."""
    # Not from Python's own generator: it belongs to the application, which may have seeded it.
    return least + (most - least) * int.from_bytes(os.urandom(4), "big") / 0xFFFFFFFF


class Deadline:
    """The time at which a whole operation must have ended, however many keys and calls it takes."""

    __slots__ = ("_clock", "_end")

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._end = clock() + seconds

    def left(self) -> float:
        """Return the seconds that are left, 0.0 once the deadline has passed."""
        return max(0.0, self._end - self._clock())

    def share(self, among: int) -> Deadline:
        """Return the deadline of one of `among` attempts, each of which may take an equal part of the time left."""
        return Deadline(self.left() / among, self._clock)
