"""Measuring in fresh processes, since one whole process can be slow by bad luck."""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from itertools import repeat

from benchmarks.sizes import Sizes

Values = dict[str, list[float]]
"""By name, what one process measured, in seconds unless the name says otherwise."""
Call = Callable[[], object]

MEMORY_BACKED = "/dev/shm"


def run(part: str, sizes: Sizes, folder: str, processes: int) -> list[Values]:
    """What the module `part` measures, once in each of so many processes."""
    found = []
    for number in range(processes):
        print(f"{part}: process {number + 1} of {processes}", file=sys.stderr)
        command = [sys.executable, "-m", "benchmarks", "--worker", part, sizes.to_json(), folder]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
        found.append(json.loads(done.stdout))
    return found


def interleave(calls: Mapping[str, Call], rounds: int, batch_seconds: float) -> Values:
    """CPU seconds a call, once a round, the calls' batches taking turns so that all see the same machine."""
    loops = {name: _loops(call, batch_seconds) for name, call in calls.items()}
    values: Values = {name: [] for name in calls}
    order = list(calls)
    for _ in range(rounds):
        random.shuffle(order)
        for name in order:
            values[name].append(_time(calls[name], loops[name]) / loops[name])
    return values


def _loops(call: Call, batch_seconds: float) -> int:
    call()  # warm
    return max(1, int(batch_seconds / max(_time(call, 3) / 3, 1e-9)))


def _time(call: Call, loops: int) -> float:
    start = time.process_time()  # not the clock on the wall: other programs may want the machine too
    for _ in repeat(None, loops):
        call()
    return time.process_time() - start


def middle(runs: list[Values], name: str) -> float:
    """The median over processes of each one's median."""
    return statistics.median(statistics.median(values[name]) for values in runs)


def ratio(runs: list[Values], name: str, base: str) -> float:
    """`name` to `base` in each process, and the median of these."""
    return statistics.median(
        statistics.median(values[name]) / statistics.median(values[base]) for values in runs
    )


def cpu_seconds(code: str) -> float:
    """User and system time of a fresh interpreter that runs `code`."""
    child = os.posix_spawn(sys.executable, [sys.executable, "-c", code], os.environ)
    _, status, usage = os.wait4(child, 0)
    if status:
        raise RuntimeError(f"an interpreter ended with {os.waitstatus_to_exitcode(status)}: {code}")
    return usage.ru_utime + usage.ru_stime


def output(code: str, *arguments: str) -> str:
    """What a fresh interpreter that runs `code` prints."""
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def storage(needed: int) -> tuple[str, bool]:
    """Where to put files of `needed` bytes in all, and whether that is memory."""
    if os.access(MEMORY_BACKED, os.W_OK):
        room = os.statvfs(MEMORY_BACKED)
        if room.f_bavail * room.f_frsize >= needed:
            return MEMORY_BACKED, True
    return tempfile.gettempdir(), False
