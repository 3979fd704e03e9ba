"""Group 7: many threads, forked children, and the end."""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import signal
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

from kmsbridge.driver import WrappedKey
from kmsbridge.errors import ClosedError
from kmsbridge.keys import ManagedKey
from kmsbridge_testing.contract.base import Cases, Keys, bound, refused
from kmsbridge_testing.contract.refusals import CALLS, Call, every_call

THREADS: Final = 64
PATIENCE: Final = 30.0


class LifetimeCases(Cases):
    """One driver in many hands, for as long as it lives."""

    def test_many_threads_share_a_driver(self, keys: Keys) -> None:
        """64 threads at once: each gets its own payload back, in its own context."""
        driver = keys.driver()
        together = threading.Barrier(THREADS)

        def work(number: int) -> bool:
            context, plaintext = bound({"thread": str(number)}), secrets.token_bytes(32)
            together.wait(PATIENCE)
            wrapped = driver.wrap(plaintext, context, timeout=PATIENCE)
            return driver.unwrap(wrapped, context, timeout=PATIENCE) == plaintext

        with ThreadPoolExecutor(THREADS) as pool:
            assert all(pool.map(work, range(THREADS)))

    def test_forked_child_uses_the_key(self, key: ManagedKey, plaintext: bytes) -> None:
        """A child of a process that has used the key uses it too, and the parent goes on."""
        wrapped = key.wrap(plaintext, bound())
        assert in_child(lambda: _works(key, wrapped, plaintext)) == "ok"
        _works(key, wrapped, plaintext)

    def test_forked_child_opens_the_key(self, keys: Keys, key: ManagedKey, plaintext: bytes) -> None:
        """A child opens a driver of its own."""
        wrapped = key.wrap(plaintext, bound())
        assert in_child(lambda: _works(keys.open(), wrapped, plaintext)) == "ok"

    def test_fork_amid_calls_leaves_the_child_able(self, key: ManagedKey, plaintext: bytes) -> None:
        """What other threads were at when the process forked holds nothing up in the child."""
        wrapped = key.wrap(plaintext, bound())
        with _busy(lambda: _works(key, wrapped, plaintext)):
            for _ in range(3):
                assert in_child(lambda: _works(key, wrapped, plaintext)) == "ok"

    def test_end_of_a_child_leaves_the_parent_able(self, key: ManagedKey, plaintext: bytes) -> None:
        """A child that closes the key closes nothing of its parent's."""
        wrapped = key.wrap(plaintext, bound())
        assert in_child(key.close) == "ok"
        _works(key, wrapped, plaintext)

    def test_close_twice(self, keys: Keys) -> None:
        """The second time does nothing."""
        driver = keys.driver()
        driver.close()
        driver.close()

    def test_close_before_any_call(self, keys: Keys) -> None:
        """Nothing has been opened that could be missing."""
        keys.open().close()

    @every_call
    def test_closed_key_is_told(self, key: ManagedKey, plaintext: bytes, call: Call) -> None:
        """Use after close is `ClosedError`."""
        wrapped = key.wrap(plaintext, bound())
        key.close()
        refused(lambda: call(key, wrapped), ClosedError)

    def test_closed_key_makes_no_call(self, calls: Counter[str], key: ManagedKey, plaintext: bytes) -> None:
        """The driver is not asked, so it need not look whether it is closed."""
        wrapped = key.wrap(plaintext, bound())
        key.close()
        before = calls.copy()
        for call in CALLS.values():
            refused(partial(call, key, wrapped), ClosedError)
        assert calls == before

    def test_close_of_one_driver_leaves_another_open(self, keys: Keys, plaintext: bytes) -> None:
        """Two drivers of one key share nothing that either may close."""
        one, other = keys.open(), keys.open()
        wrapped = one.wrap(plaintext, bound())
        one.close()
        _works(other, wrapped, plaintext)


def in_child(work: Callable[[], object]) -> str:
    """What became of `work` in a forked child: "ok", or what went wrong; never waits for ever."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        # Python warns of forking where there are threads: that is what is to be tried.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        _report(work, writing)
    os.close(writing)
    try:
        if not select.select([reading], [], [], PATIENCE)[0]:
            os.kill(child, signal.SIGKILL)
            return "the child hangs"
        return os.read(reading, 4096).decode() or "the child died"
    finally:
        os.close(reading)
        os.waitpid(child, 0)


def _report(work: Callable[[], object], writing: int) -> None:
    text = "died"
    try:
        work()
        text = "ok"
    except BaseException as error:  # noqa: BLE001 - whatever it is, the parent is told
        text = f"{type(error).__name__}: {error}"
    finally:
        os.write(writing, text.encode()[:4096])
        os._exit(0)


def _works(key: ManagedKey, wrapped: WrappedKey, plaintext: bytes) -> None:
    assert key.unwrap(wrapped, bound()) == plaintext
    assert key.unwrap(key.wrap(plaintext, bound()), bound()) == plaintext


@contextlib.contextmanager
def _busy(work: Callable[[], object]) -> Iterator[None]:
    """Two threads that do `work` again and again meanwhile, and have each done it once."""
    over, begun = threading.Event(), threading.Semaphore(0)

    def toil() -> None:
        while not over.is_set():
            work()
            begun.release()

    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(toil) for _ in range(2)]
        try:
            for _ in futures:
                assert begun.acquire(timeout=PATIENCE)
            yield
        finally:
            over.set()
    for future in futures:
        future.result()
