"""One deadline for a whole call of a driver: for all its requests, however slowly their answers arrive.

The deadline is kept per thread, so that it also works below a client library that passes on no timeout, or
applies its timeout to each read separately.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Final

_EARLY: Final = 0.005
"""A wait for all the remaining time may end this many seconds early."""
_this_thread = threading.local()


@contextlib.contextmanager
def within(timeout: float) -> Iterator[None]:
    """Set this thread's deadline for the block, `timeout` seconds from now.

    Inside another such block, the earlier of the two deadlines holds.
    """
    before: float | None = getattr(_this_thread, "end", None)
    end = time.monotonic() + timeout
    _this_thread.end = end if before is None else min(before, end)
    try:
        yield
    finally:
        _this_thread.end = before


def left() -> float:
    """Return the seconds until the deadline of the enclosing `within` block.

    Raises `TimeoutError` if the deadline has passed, and `RuntimeError` outside such a block.
    """
    seconds = _end() - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds


def is_over() -> bool:
    """Return whether the deadline has passed or is less than 5 ms away, so that a failure now is a timeout.

    Raises `RuntimeError` outside a `within` block.
    """
    return _end() - time.monotonic() < _EARLY


def _end() -> float:
    end: float | None = getattr(_this_thread, "end", None)
    if end is None:
        raise RuntimeError(
            "there is no deadline on this thread; call this inside `with deadline.within(timeout)`"
        )
    return end
