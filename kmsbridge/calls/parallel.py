"""Several calls at once, where the slowest should count and not the sum."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

A = TypeVar("A")
T = TypeVar("T")

AT_ONCE: Final = 16
"""The most threads for one piece of work; each waits for the network most of the time."""


def in_parallel(work: Callable[[A], T], items: Sequence[A]) -> list[T]:
    """`work` done for each item, results in their order.

    If any fails, the first error in the order of items is raised when all have ended. The threads end
    with the work: none is kept for later, so there is none for a fork to lose.
    """
    if len(items) <= 1:
        return [work(item) for item in items]
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(min(len(items), AT_ONCE), "kmsbridge-call") as pool:
        try:
            waiting = [pool.submit(work, item) for item in items]
        except RuntimeError:  # the interpreter is ending and starts no thread any more
            waiting = None
    if waiting is None:
        return [work(item) for item in items]
    return [each.result() for each in waiting]
