"""Several calls at once."""

import subprocess
import sys
import threading
import time

import pytest

from kmsbridge.threads import MAX_PARALLEL, in_parallel
from tests.support import PATIENCE


def test_results_are_in_the_order_of_the_items():
    assert in_parallel(lambda n: n * n, range(100)) == [n * n for n in range(100)]


def test_all_are_under_way_at_once():
    """Each waits for all the others."""
    together = threading.Barrier(MAX_PARALLEL)
    assert in_parallel(lambda n: together.wait(30) is not None, range(MAX_PARALLEL)) == [True] * MAX_PARALLEL


def test_there_are_never_more_threads_than_said():
    lock, now, most = threading.Lock(), 0, 0

    def work(_):
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        with lock:
            now -= 1

    in_parallel(work, range(20 * MAX_PARALLEL))
    assert most <= MAX_PARALLEL


def test_the_first_error_is_raised_when_all_have_ended():
    """First in the order of items, not in time."""
    slow, ended = threading.Event(), []

    def work(n):
        if n == 1:
            slow.wait(30)
            raise KeyError(n)
        if n == 2:
            slow.set()
            raise ValueError(n)
        ended.append(n)

    with pytest.raises(KeyError):
        in_parallel(work, range(5))
    assert sorted(ended) == [0, 3, 4]


def test_no_thread_is_left():
    """They end by themselves, soon after the work."""
    before = set(threading.enumerate())
    in_parallel(lambda n: n, range(50))
    until = time.monotonic() + PATIENCE
    while set(threading.enumerate()) - before and time.monotonic() < until:
        time.sleep(0.01)
    assert not set(threading.enumerate()) - before


def test_one_item_needs_no_thread():
    assert in_parallel(lambda _: threading.current_thread(), [1]) == [threading.current_thread()]


def test_work_is_done_while_the_interpreter_ends():
    """One after the other, where no thread can be started any more."""
    program = (
        "import atexit, concurrent.futures.thread\n"
        "from kmsbridge.threads import in_parallel\n"
        "atexit.register(lambda: print(in_parallel(lambda n: n + 1, [1, 2, 3])))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[2, 3, 4]\n", done.stderr
