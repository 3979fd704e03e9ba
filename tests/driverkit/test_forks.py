"""A fork waits for the calls under way, and calls wait for the fork."""

import subprocess
import sys
import threading

from kmsbridge.driverkit.forks import ForkGate
from tests.support import PATIENCE

# In processes of their own: hooks of forks cannot be taken back.
PREAMBLE = """
import os, sys, threading, time, warnings
from kmsbridge.driverkit.forks import ForkGate
warnings.simplefilter("ignore")
gate = ForkGate({patience})
begun, go_on, ended = threading.Event(), threading.Event(), []

def call():
    with gate.call():
        begun.set()
        go_on.wait(20)
        ended.append("ended")

def fork(child):
    pid = os.fork()
    if pid == 0:
        os._exit(0 if child() else 1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

under_way = threading.Thread(target=call, daemon=True)
under_way.start()
begun.wait(20)
"""


def run(program, patience=20):
    done = subprocess.run(
        [sys.executable, "-c", PREAMBLE.format(patience=patience) + program],
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_fork_waits_for_a_call_under_way():
    """The child sees it ended."""
    told = run("""
threading.Timer(0.2, go_on.set).start()
print(fork(lambda: ended == ["ended"]))
""")
    assert told == ["0"]


def test_fork_waits_for_a_call_that_hangs_only_so_long():
    told = run("print(fork(lambda: ended == []))", patience=0.1)
    assert told == ["0"]


def test_child_and_parent_go_on_calling():
    """The calls that were under way at the fork are not counted in the child."""
    told = run(
        """
def again():
    with gate.call():
        return fork(lambda: True) == 0  # nothing is under way there but this call

print(fork(again))
go_on.set()
under_way.join(20)
with gate.call():
    print("parent")
""",
        patience=0.1,
    )
    assert told == ["0", "parent"]


def test_call_waits_for_a_fork_that_is_waiting():
    """Else a busy client would never let a fork through."""
    told = run("""
order = []
def late():
    while not gate._forking:
        time.sleep(0.001)
    threading.Timer(0.2, go_on.set).start()
    with gate.call():
        order.append("call")

second = threading.Thread(target=late)
second.start()
os.register_at_fork(after_in_parent=lambda: order.append("fork"))
fork(lambda: True)
second.join(20)
print(*order)
""")
    assert told[-1:] == ["call"]
    assert told[0] == "fork"


def test_calls_do_not_wait_for_each_other():
    """Eight threads are in one at once."""
    gate, together = ForkGate(), threading.Barrier(8)

    def call():
        with gate.call():
            together.wait(PATIENCE)

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert not together.broken
