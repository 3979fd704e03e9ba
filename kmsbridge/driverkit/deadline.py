"""One deadline for a whole call of a driver: for all of its requests, and however slowly their bytes come.

It belongs to the thread, so that it reaches through a client library that hands on no timeout, or one for each
read alone.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Final

_EARLY: Final = 0.005
"""Seconds before the end at which a wait for all of the time may wake already."""
_this_thread = threading.local()


@contextlib.contextmanager
def within(timeout: float) -> Iterator[None]:
    """Have what this thread waits for in the block end within `timeout` seconds.

    A block inside another ends with that one at the latest.
    """
    before: float | None = getattr(_this_thread, "end", None)
    end = time.monotonic() + timeout
    _this_thread.end = end if before is None else min(before, end)
    try:
        yield
    finally:
        _this_thread.end = before


def left() -> float:
    """Return the seconds that are left of the block around. Raises `TimeoutError` where there are none."""
    seconds = _end() - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds


def is_over() -> bool:
    """Return whether there is no time left worth speaking of: a failure now is one for want of time."""
    return _end() - time.monotonic() < _EARLY


def _end() -> float:
    end: float | None = getattr(_this_thread, "end", None)
    if end is None:
        raise RuntimeError("no block of deadline.within is around this call")
    return end
