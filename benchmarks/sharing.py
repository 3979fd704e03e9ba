"""One cipher shared by two threads, and by two processes: how much more than one gets done."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from itertools import repeat

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from benchmarks import keys
from benchmarks.report import Line
from benchmarks.sizes import Sizes
from benchmarks.workers import Values, middle, ratio
from kmsbridge import EnvelopeCipher

ALONE = "one thread"
BARE = "AESGCM.encrypt with os.urandom(12)"
PLAINTEXT = bytes(100)

Job = Callable[[], None]


def worker(sizes: Sizes, folder: str) -> Values:
    """Seconds in which each of the workers did the whole of a job."""
    with EnvelopeCipher.from_uri(keys.uri(folder)) as cipher:

        def many(call: Callable[[], object]) -> Job:
            return lambda: consume(call, sizes.shared_messages)

        message, aead = cipher.encrypt(PLAINTEXT), AESGCM(bytes(32))
        values: Values = {}
        jobs = {
            "encrypt": many(lambda: cipher.encrypt(PLAINTEXT)),
            "decrypt": many(lambda: cipher.decrypt(message)),
            BARE: many(lambda: aead.encrypt(os.urandom(12), PLAINTEXT, None)),
        }
        for name, job in jobs.items():
            job()  # warm
            for _ in range(sizes.shared_rounds):
                for way, run in (
                    ("one thread", _alone),
                    ("two threads", _threads),
                    ("two processes", _forks),
                ):
                    start = time.perf_counter()
                    run(job)
                    values.setdefault(f"{name}, {way}", []).append(time.perf_counter() - start)
    return values


def consume(call: Callable[[], object], times: int) -> None:
    """Make a call so many times."""
    for _ in repeat(None, times):
        call()


def _alone(job: Job) -> None:
    job()


def _threads(job: Job) -> None:
    threads = [threading.Thread(target=job) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _forks(job: Job) -> None:
    children = [_fork(job) for _ in range(2)]
    for child in children:
        _, status = os.waitpid(child, 0)
        assert status == 0, "a forked child failed"


def _fork(job: Job) -> int:
    child = os.fork()
    if not child:
        status = 1
        try:
            job()
            status = 0
        finally:
            os._exit(status)
    return child


def lines(runs: list[Values], sizes: Sizes) -> list[Line]:
    """The table's lines: what two got done a second, as a ratio to what one did."""
    part = "One cipher shared, ratio to one thread"
    found = []
    for name in runs[0]:
        job, _, way = name.partition(", ")
        rate = (1 if way == ALONE else 2) * sizes.shared_messages / middle(runs, name) / 1e3
        times = 1.0 if way == ALONE else _gain(runs, job, way)
        found.append(Line(part, name, rate, "k/s", ratio=times, limit=_limit(runs, job, way), at_least=True))
    return found


def _gain(runs: list[Values], job: str, way: str) -> float:
    return 2 / ratio(runs, f"{job}, {way}", f"{job}, {ALONE}")


def _limit(runs: list[Values], job: str, way: str) -> float | None:
    """Return the least ratio of two threads to one; None where there is no limit.

    A bare loop loses in two threads too, because `os.urandom` lets go of the GIL, so encrypting is held against it.
    """
    if way != "two threads" or job not in ("encrypt", "decrypt"):
        return None
    return round(0.9 * _gain(runs, BARE, way), 2) if job == "encrypt" else 0.85
