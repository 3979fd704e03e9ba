"""Group 13: an exception that neither the driver nor the library caused reaches the caller."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from typing import Final

import pytest

from kmsbridge.policy import CallPolicy
from kmsbridge_testing.contract.base import Cases, Keys, bound, needs
from kmsbridge_testing.contract.refusals import Call, every_call, needs_no_service
from kmsbridge_testing.harness import Fault, Harness

PATIENT: Final = CallPolicy(attempt_timeout=8, deadline=20, max_attempts=2)
_SOON: Final = 0.3
_TRIES: Final = 3
"""Breaking the network can fail a first attempt, which the key rightly counts; the case is then repeated."""
_AT_ONCE: Final = 5.0
"""The most seconds that "at once" may take on a busy machine."""


class SoftTimeLimit(Exception):
    """An exception such as task queues raise when a task takes too long; no driver knows its class."""


FOREIGN: Final = (SoftTimeLimit, TimeoutError, KeyboardInterrupt)

every_exception = pytest.mark.parametrize("foreign", FOREIGN, ids=lambda foreign: foreign.__name__)


class InterruptionCases(Cases):
    """Cases for signal handlers that raise during a call. Python runs them on the main thread only."""

    @needs("break_network")
    @every_call
    @every_exception
    @pytest.mark.parametrize("fault", [Fault.HANG], ids=lambda fault: fault.value)
    def test_foreign_exception_reaches_the_caller(
        self,
        harness: Harness,
        keys: Keys,
        plaintext: bytes,
        fault: Fault,
        call: Call,
        foreign: type[BaseException],
    ) -> None:
        """It is raised at once and unchanged while the service hangs; no retry, and no failure of the key."""
        assert threading.current_thread() is threading.main_thread(), (
            "run this on the main thread, for signals"
        )
        for _ in range(_TRIES):
            key, error = keys.open(policy=PATIENT), foreign()
            wrapped = key.wrap(plaintext, bound())
            if needs_no_service(key, call):
                return
            finished = len(keys.calls.finished)
            harness.break_network(fault)
            began = time.monotonic()
            with interrupted(error, after=_SOON), pytest.raises(foreign) as caught:
                call(key, wrapped)
            seconds, arrivals = time.monotonic() - began, harness.arrivals()
            harness.heal_network()
            assert caught.value is error
            assert seconds < _AT_ONCE
            assert arrivals <= 1
            assert len(keys.calls.finished) == finished
            failed = key.unhealthy
            assert key.unwrap(wrapped, bound()) == plaintext
            if not failed:
                return
        pytest.fail("a call that a signal handler's exception ended was counted as a failure of the service")


@contextlib.contextmanager
def interrupted(error: BaseException, *, after: float) -> Iterator[None]:
    """Have a signal handler raise `error` on this thread, the main one, if the block takes `after` seconds."""
    # Not `signal.setitimer`, which pytest's own timeouts may use.
    over, main = threading.Event(), threading.main_thread().ident
    assert main == threading.get_ident()

    def handler(*_: object) -> None:
        raise error

    def later() -> None:
        if not over.wait(after):
            signal.pthread_kill(main, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, handler)
    thread = threading.Thread(target=later, daemon=True)
    try:
        thread.start()
        yield
    finally:
        over.set()
        thread.join()
        signal.signal(signal.SIGUSR1, before)
