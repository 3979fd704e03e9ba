"""The tests do not depend on the signals that whoever starts them ignores or blocks."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHOW = """
import signal
ignored = {n for n in signal.valid_signals() if signal.getsignal(n) is signal.SIG_IGN}
print(sorted(ignored - {signal.SIGPIPE, signal.SIGXFSZ}), sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())))
"""
IGNORE_AND_BLOCK = """
import os, signal, sys
everything = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
for number in everything if "ignore" in sys.argv[1] else ():
    signal.signal(number, signal.SIG_IGN)
if "block" in sys.argv[1]:
    signal.pthread_sigmask(signal.SIG_SETMASK, everything)
os.execv(sys.argv[2], sys.argv[2:])
"""


def test_a_program_that_a_test_starts_ignores_and_blocks_no_signal():
    """Whatever the run itself was started with; SIGPIPE and SIGXFSZ are ignored by Python itself."""
    shown = subprocess.run([sys.executable, "-c", SHOW], capture_output=True, text=True, check=True)
    assert shown.stdout.split("\n")[0] == "[] []"


@pytest.mark.parametrize("workers", ("0", "1"), ids=("in one process", "in a worker"))
@pytest.mark.parametrize("how", ("ignore", "block", "ignore and block"))
def test_that_holds_for_a_run_that_is_started_with_all_signals_off(how, workers):
    """All that can be ignored, as `nohup` and a shell's background do with some, or blocked, or both."""
    name = test_a_program_that_a_test_starts_ignores_and_blocks_no_signal.__name__
    pytest_again = [sys.executable, "-m", "pytest", "-q", "-n", workers, f"{__file__}::{name}"]
    done = subprocess.run(
        [sys.executable, "-c", IGNORE_AND_BLOCK, how, *pytest_again],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_a_run_under_nohup_outlives_the_hangup_that_it_is_to_outlive():
    """Its tests find the signal as from a terminal, and still it does not end the run."""
    code = """
import os, signal
from tests import conftest
signal.signal(signal.SIGHUP, signal.SIG_IGN)
conftest._forget_inherited_signals()
os.kill(os.getpid(), signal.SIGHUP)
"""
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
