"""`harden_process` shuts two ways of reading a process's memory."""

import subprocess
import sys

import pytest

CODE = """
import ctypes, resource, sys
from kmsbridge import harden_process
harden_process()
assert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)
if sys.platform == "linux":
    PR_GET_DUMPABLE = 3
    assert ctypes.CDLL(None).prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) == 0
"""


@pytest.mark.parametrize("times", (1, 2))
def test_a_hardened_process_leaves_no_core_and_cannot_be_traced(times):
    """No core dump, not dumpable; doing it again is no error."""
    code = CODE.replace("\nharden_process()", "\n" + "; ".join(["harden_process()"] * times))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
