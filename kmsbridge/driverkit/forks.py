"""Forking between the calls of a client library, not amid one."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator


class ForkGate:
    """A fork waits for the calls under way to end; calls that would begin meanwhile wait for the fork.

    For a client library that is left broken in a child which was forked while another thread used it. Both wait
    `patience` seconds at most, so give each call a timeout of less. There is one for each library and process:
    make it at module level. What hooks the library has of its own run after these where it was imported before.
    """

    def __init__(self, patience: float = 5.0) -> None:
        self._patience = patience
        self._reset()
        os.register_at_fork(
            before=self._before, after_in_parent=self._after_in_parent, after_in_child=self._reset
        )

    @contextlib.contextmanager
    def call(self) -> Iterator[None]:
        """To be held around each call of the client library."""
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
