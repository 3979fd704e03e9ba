"""Work that has no timeout of its own, waited for only so long: fetching credentials."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future


class InBackground:
    """Does one thing at a time in a thread of its own; who comes meanwhile waits for the same.

    An instance's metadata service, a credential process, a single sign-on: botocore waits for them as
    long as they take. What comes too late for one call has been done for the next.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: Future[None] | None = None

    def begin(self, work: Callable[[], None]) -> Future[None]:
        """Start `work`, unless something runs already."""
        with self._lock:
            if self._running is None or self._running.done():
                running: Future[None] = Future()
                # A daemon: a program does not wait at its end for credentials that nobody needs.
                thread = threading.Thread(target=_run, args=(work, running), name="aws-kms", daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # no more threads, now or at the interpreter's end
                    _run(work, running)
                self._running = running
            return self._running

    def finish(self, work: Callable[[], None], deadline: float) -> None:
        """Wait for it too; raises what it raises, and `TimeoutError` at the monotonic time `deadline`."""
        self.begin(work).result(max(0.0, deadline - time.monotonic()))


def _run(work: Callable[[], None], done: Future[None]) -> None:
    try:
        work()
    except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
        done.set_exception(error)
    else:
        done.set_result(None)
