"""A gate that keeps the process from forking during a call of a client library."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator


class ForkGate:
    """Makes a fork wait for the calls in progress, and new calls wait for the fork.

    Use it for a client library that is broken in a child process forked while another thread used the library,
    such as gRPC. Both waits end after `patience` seconds, so give each call a shorter timeout. Make one gate for
    each library, at module level, because fork hooks cannot be removed; and make it after importing the library,
    so that a fork waits here before the library's own hooks run.
    """

    def __init__(self, patience: float = 5.0) -> None:
        self._patience = patience
        self._reset()
        os.register_at_fork(
            before=self._before, after_in_parent=self._after_in_parent, after_in_child=self._reset
        )

    @contextlib.contextmanager
    def call(self) -> Iterator[None]:
        """Return a context manager to hold during each call of the client library."""
        with self._changed:
            self._changed.wait_for(lambda: not self._forking, self._patience)
            self._calls += 1
        try:
            yield
        finally:
            with self._changed:
                self._calls -= 1
                self._changed.notify_all()

    def _before(self) -> None:
        self._changed.acquire()
        self._forking = True
        self._changed.wait_for(lambda: not self._calls, self._patience)

    def _after_in_parent(self) -> None:
        self._forking = False
        self._changed.notify_all()
        self._changed.release()

    def _reset(self) -> None:
        self._changed = threading.Condition()
        self._calls, self._forking = 0, False
