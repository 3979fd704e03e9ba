"""Group 7: many threads, forked child processes, and `close`."""

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
    """Cases for the use of a driver from threads and child processes, and after `close`."""

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
        """A child process can use a key that its parent has used, and so can the parent afterwards."""
        wrapped = key.wrap(plaintext, bound())
        assert in_child(lambda: _works(key, wrapped, plaintext)) == "ok"
        _works(key, wrapped, plaintext)

    def test_forked_child_opens_the_key(self, keys: Keys, key: ManagedKey, plaintext: bytes) -> None:
        """A child process can open a driver itself."""
        wrapped = key.wrap(plaintext, bound())
        assert in_child(lambda: _works(keys.open(), wrapped, plaintext)) == "ok"

    def test_fork_amid_calls_leaves_the_child_able(self, key: ManagedKey, plaintext: bytes) -> None:
        """Calls that other threads were making at the fork do not block the child process."""
        wrapped = key.wrap(plaintext, bound())
        with _busy(lambda: _works(key, wrapped, plaintext)):
            for _ in range(3):
                assert in_child(lambda: _works(key, wrapped, plaintext)) == "ok"

    def test_end_of_a_child_leaves_the_parent_able(self, key: ManagedKey, plaintext: bytes) -> None:
        """A child process that closes the key does not affect its parent."""
        wrapped = key.wrap(plaintext, bound())
        assert in_child(key.close) == "ok"
        _works(key, wrapped, plaintext)

    def test_close_twice(self, keys: Keys) -> None:
        """A second `close` does nothing."""
        driver = keys.driver()
        driver.close()
        driver.close()

    def test_close_before_any_call(self, keys: Keys) -> None:
        """A key that was never used can be closed."""
        keys.open().close()

    @every_call
    def test_closed_key_is_told(self, key: ManagedKey, plaintext: bytes, call: Call) -> None:
        """Use after `close` is a `ClosedError`."""
        wrapped = key.wrap(plaintext, bound())
        key.close()
        refused(lambda: call(key, wrapped), ClosedError)

    def test_closed_key_makes_no_call(self, calls: Counter[str], key: ManagedKey, plaintext: bytes) -> None:
        """The library does not call a closed driver, which therefore need not check."""
        wrapped = key.wrap(plaintext, bound())
        key.close()
        before = calls.copy()
        for call in CALLS.values():
            refused(partial(call, key, wrapped), ClosedError)
        assert calls == before

    def test_close_of_one_driver_leaves_another_open(self, keys: Keys, plaintext: bytes) -> None:
        """Closing one of two drivers of a key does not affect the other."""
        one, other = keys.open(), keys.open()
        wrapped = one.wrap(plaintext, bound())
        one.close()
        _works(other, wrapped, plaintext)


def in_child(work: Callable[[], object]) -> str:
    """Do `work` in a forked child process; return "ok" or what went wrong. Waits at most `PATIENCE` seconds."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        # Python warns about forking a process with threads, which is what is tested here.
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
    except BaseException as error:  # noqa: BLE001 - reported to the parent
        text = f"{type(error).__name__}: {error}"
    finally:
        os.write(writing, text.encode()[:4096])
        os._exit(0)


def _works(key: ManagedKey, wrapped: WrappedKey, plaintext: bytes) -> None:
    assert key.unwrap(wrapped, bound()) == plaintext
    assert key.unwrap(key.wrap(plaintext, bound()), bound()) == plaintext


@contextlib.contextmanager
def _busy(work: Callable[[], object]) -> Iterator[None]:
    """Repeat `work` on two threads during the block, which begins after each has done it once or twice in all."""
    over, begun = threading.Event(), threading.Semaphore(0)

    def repeat() -> None:
        while not over.is_set():
            work()
            begun.release()

    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(repeat) for _ in range(2)]
        try:
            for _ in futures:
                assert begun.acquire(timeout=PATIENCE)
            yield
        finally:
            over.set()
    for future in futures:
        future.result()
