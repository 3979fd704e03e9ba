"""Objects whose locks, caches and connections are replaced in a forked child process."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class ForkAware(Protocol):
    """An object with state that a forked child must not share with its parent."""

    def after_fork(self) -> None:
        """Make new locks and drop caches. Runs in the child, where only the forking thread is left."""


_aware: weakref.WeakSet[ForkAware] = weakref.WeakSet()


def watch(thing: ForkAware) -> None:
    """Call `thing.after_fork()` in every child that is forked while `thing` lives. Does not keep it alive."""
    _aware.add(thing)


def _after_fork() -> None:
    for thing in list(_aware):
        thing.after_fork()


os.register_at_fork(after_in_child=_after_fork)
