"""Time: a clock for ages, the end of an operation's time, and random pauses."""

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
"""Seconds since some fixed moment, for ages of data keys: it also runs while the machine sleeps.

Linux's CLOCK_BOOTTIME; elsewhere `time.monotonic`, which on some systems stands still meanwhile.
"""


def jitter(least: float, most: float) -> float:
    """Return a random number of seconds between these, so that those who wait do not all come back at once.

    From the operating system: Python's own generator is the application's, which may have seeded it.
    """
    return least + (most - least) * int.from_bytes(os.urandom(4), "big") / 0xFFFFFFFF


class Deadline:
    """When a whole operation must have ended, however many keys and calls it takes."""

    __slots__ = ("_clock", "_end")

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._end = clock() + seconds

    def left(self) -> float:
        """Seconds that are left; 0.0 when it has passed."""
        return max(0.0, self._end - self._clock())

    def share(self, among: int) -> Deadline:
        """A deadline after one of `among` equal parts of what is left, for one of so many attempts."""
        return Deadline(self.left() / among, self._clock)
