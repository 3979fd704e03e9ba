"""Work on numbered parts, such as the steps through a large file, shared by several threads."""

from __future__ import annotations

import _thread
import contextlib
import itertools
import os
from collections.abc import Callable, Iterator
from typing import Final

from kmsbridge.errors import forget_locals
from kmsbridge.threads import Outcome

MAX_THREADS: Final = 4
PARTS_EACH: Final = 8
"""The fewest parts for each thread: starting one, with its buffers, costs as much as two parts."""

Work = Callable[[Iterator[int]], Iterator[int]]
"""Takes numbers from an iterator, does the part of each, and yields the number of bytes that it had."""


def processors() -> int:
    """Return the number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run(work: Work, count: int, done: Callable[[int], None]) -> None:
    """Do the parts 0 to `count` - 1, on this thread and, where there are many, on one for each other processor.

    There are 4 threads at most, with at least 8 parts for each.

    `work` is called once on each thread, with an iterator that they share. `done` is called on this thread alone,
    after each of its own parts, with the bytes that all have done since it was last called.

    What is raised on any thread, also by `done` or by a signal handler, ends the work of all and is raised here. By
    then no thread has a part any more, however often the waiting for it was interrupted.
    """
    if not count:
        return
    shared = _Shared(work, count)
    # `end` twice: the exception of a signal handler can arrive in the first one before it waits.
    try:
        try:
            for _ in range(min(MAX_THREADS, processors(), count // PARTS_EACH) - 1):
                with contextlib.suppress(RuntimeError):  # no thread can be started
                    # Not by `threading`: a `start` that is interrupted can leave a thread that hangs.
                    _thread.start_new_thread(shared.help_out, ())
            for size in work(shared):
                done(size + shared.take_sizes())
        finally:
            shared.end()
    finally:
        shared.end()
    shared.raise_error()
    if size := shared.take_sizes():
        done(size)


class _Shared:
    """The numbers of the parts that no thread has taken yet, and what the helping threads have done."""

    def __init__(self, work: Work, count: int) -> None:
        self._work = work
        self._counter, self._count = itertools.count(), count
        self._sizes: list[int] = []
        self._helpers: list[Outcome[None]] = []

    def __iter__(self) -> _Shared:
        return self

    def __next__(self) -> int:
        number = next(self._counter)  # goes to one thread only
        if number >= self._count:
            raise StopIteration
        return number

    def help_out(self) -> None:
        """Do parts while there are any."""
        outcome: Outcome[None] = Outcome()
        try:
            # Before a number is taken: `end` waits for this thread, or has left it no number.
            self._helpers.append(outcome)
            for size in self._work(self):
                self._sizes.append(size)
        except BaseException as error:  # noqa: BLE001 - raised by `raise_error`
            self._count = 0
            forget_locals(error)
            outcome.set(None, error)
        else:
            outcome.set(None)

    def take_sizes(self) -> int:
        """Return the bytes that the helpers have done since the last call."""
        total = 0
        while self._sizes:
            total += self._sizes.pop()
        return total

    def end(self) -> None:
        """Give out no more numbers, and wait until no helper has a part. Raise what interrupted this, after that."""
        self._count = 0
        waiting, interrupt = True, None
        while waiting:
            try:
                for outcome in self._helpers:
                    outcome.wait()
                waiting = False
            except BaseException as error:  # noqa: BLE001 - raised below
                interrupt = error
        if interrupt is not None:
            try:
                raise interrupt
            finally:
                del interrupt

    def raise_error(self) -> None:
        """Raise what ended a helper, if anything did."""
        for outcome in self._helpers:
            outcome.get()
