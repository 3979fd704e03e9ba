"""What must be made anew in a forked child: locks, caches, connections."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class ForkAware(Protocol):
    """Something with state that a child must not share with its parent."""

    def after_fork(self) -> None:
        """Called in the child, where only the forking thread is left: make fresh locks, drop caches."""


_aware: weakref.WeakSet[ForkAware] = weakref.WeakSet()


def watch(thing: ForkAware) -> None:
    """Have `thing.after_fork()` called in every child from now on, for as long as `thing` lives."""
    _aware.add(thing)


def _after_fork() -> None:
    for thing in list(_aware):
        thing.after_fork()


os.register_at_fork(after_in_child=_after_fork)
