"""Protection of the process's memory against other processes of the same user."""

from __future__ import annotations

import ctypes
import resource
import sys

_PR_SET_DUMPABLE = 4


def harden_process() -> None:
    """Turn off core dumps and, on Linux, access by ptrace and /proc/PID/mem for processes of the same user.

    Keys are in memory while they are used, and copies of some for longer. This closes two ways of reading that
    memory (setrlimit(2), prctl(2)). Debuggers and some profilers stop working. Raises `OSError` where the
    system refuses.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux" and ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0):
        code = ctypes.get_errno()
        raise OSError(code, "prctl(PR_SET_DUMPABLE) failed")
