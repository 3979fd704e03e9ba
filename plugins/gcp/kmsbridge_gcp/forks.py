"""Forking between calls, not amid one.

A child in which another thread's gRPC call was under way at the fork can hang at its own first call, and
gRPC's own handling of forks then looks away. So a fork waits for the calls of this driver that are under
way (each has a timeout), and calls that would begin meanwhile wait for the fork.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import Final

# First, so that its own hooks run after these: those that run before a fork run in reverse order.
import grpc  # noqa: F401

_PATIENCE: Final = 5.0


class _Gate:
    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._calls, self._forking = 0, False

    @contextlib.contextmanager
    def call(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._forking, _PATIENCE)
            self._calls += 1
        try:
            yield
        finally:
            with self._changed:
                self._calls -= 1
                self._changed.notify_all()

    def before(self) -> None:
        self._changed.acquire()
        self._forking = True
        self._changed.wait_for(lambda: not self._calls, _PATIENCE)

    def after_in_parent(self) -> None:
        self._forking = False
        self._changed.notify_all()
        self._changed.release()

    def after_in_child(self) -> None:
        self.__init__()  # type: ignore[misc]


_gate = _Gate()
os.register_at_fork(
    before=_gate.before, after_in_parent=_gate.after_in_parent, after_in_child=_gate.after_in_child
)


def amid_call() -> contextlib.AbstractContextManager[None]:
    """Around each call through gRPC."""
    return _gate.call()
