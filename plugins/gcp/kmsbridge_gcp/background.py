"""Work that cannot be given a deadline: done in a thread of its own, waited for as long as there is time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future


class Background:
    """Does `work` in a thread, once at a time: who asks meanwhile waits for the same."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self._lock = threading.Lock()
        self._running: Future[None] | None = None

    def start(self) -> Future[None]:
        """The work that is under way; begun if there is none."""
        with self._lock:
            if self._running is None or self._running.done():
                running: Future[None] = Future()
                thread = threading.Thread(
                    target=self._run, args=(running,), name="kmsbridge-gcp-credentials", daemon=True
                )
                try:
                    thread.start()
                except RuntimeError:  # no more threads, now or at the interpreter's end
                    self._run(running)
                self._running = running
            return self._running

    def wait(self, timeout: float) -> None:
        """Have it done. Raises what the work raises, or `TimeoutError`; the work then goes on."""
        self.start().result(timeout)

    def _run(self, done: Future[None]) -> None:
        try:
            self._work()
        except BaseException as error:  # noqa: BLE001 - whoever waits is told
            done.set_exception(error)
        else:
            done.set_result(None)
