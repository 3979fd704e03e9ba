"""One file, many writers: the chain holds through threads, processes, forks and kills."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from kmsbridge.audit import AuditEvent, AuditTrail, verify
from kmsbridge.policy import AuditPolicy

WRITER = """
import sys, threading
from kmsbridge.audit import AuditEvent, AuditTrail
from kmsbridge.policy import AuditPolicy
path, threads, events = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
trail = AuditTrail(AuditPolicy(file=path, required=sys.argv[4] == "required"), profile="p")
def write(thread):
    for n in range(events):
        trail.record(AuditEvent("wrap", context={"thread": str(thread), "n": str(n)}))
sys.stdin.readline()
workers = [threading.Thread(target=write, args=(n,)) for n in range(threads)]
for each in workers: each.start()
print("going", flush=True)
for each in workers: each.join()
"""


def start(path, threads, events, mode="optional"):
    arguments = [sys.executable, "-c", WRITER, str(path), str(threads), str(events), mode]
    return subprocess.Popen(
        arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_four_processes_of_four_threads_write_one_chain(tmp_path):
    """800 events, none lost, none torn, no warning."""
    path = tmp_path / "audit.jsonl"
    writers = [start(path, 4, 50) for _ in range(4)]
    for each in writers:
        each.stdin.write("\n")
        each.stdin.flush()
    for each in writers:
        assert each.communicate()[1] == ""
        assert each.returncode == 0
    assert verify(path).lines == 800


def test_the_log_verifies_while_it_is_written(tmp_path):
    """A reader never sees half a line."""
    path = tmp_path / "audit.jsonl"
    path.touch()
    with start(path, 2, 300) as writer:
        writer.stdin.write("\n")
        writer.stdin.flush()
        seen = [verify(path).lines]
        while writer.poll() is None:
            seen.append(verify(path).lines)
        assert writer.stderr.read() == ""
    assert seen == sorted(seen)
    assert verify(path).lines == 600


@pytest.mark.parametrize("mode", ("optional", "required"))
def test_a_writer_killed_at_any_point_leaves_a_log_that_goes_on(tmp_path, torture, mode):
    """After the next append the chain verifies, and no whole line was lost."""
    path = tmp_path / "audit.jsonl"
    rng = torture.rng(f"audit-kill-{mode}")
    path.touch()
    lines = 0
    for _ in range(10):
        with start(path, 2, 1_000_000, mode) as writer:
            writer.stdin.write("\n")
            writer.stdin.flush()
            assert writer.stdout.readline() == "going\n"
            size = path.stat().st_size
            wanted = size + rng.randrange(1, 20_000)
            while path.stat().st_size < wanted:
                assert writer.poll() is None
            os.kill(writer.pid, signal.SIGKILL)
        AuditTrail(AuditPolicy(file=str(path)), profile="p").record(AuditEvent("close"))
        result = verify(path)
        assert result.lines > lines
        lines = result.lines


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_forked_children_continue_their_parents_chain(tmp_path):
    """While another thread of the parent writes, so that locks and descriptors are inherited in use."""
    path = tmp_path / "audit.jsonl"
    trail = AuditTrail(AuditPolicy(file=str(path)), profile="p")
    trail.record(AuditEvent("wrap"))
    done, written = threading.Event(), []

    def write():
        while not done.is_set():
            trail.record(AuditEvent("wrap"))
            written.append(1)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        results = [os.waitpid(_fork_and_record(trail, 5), 0)[1] for _ in range(20)]
    finally:
        done.set()
        thread.join()
    assert results == [0] * 20
    assert verify(path).lines == 1 + len(written) + 20 * 5


def _fork_and_record(trail, events):
    child = os.fork()
    if child == 0:
        status = 1
        try:
            for _ in range(events):
                trail.record(AuditEvent("wrap"))
            status = 0
        finally:
            os._exit(status)
    return child


def test_a_child_that_was_forked_in_mid_write_does_not_keep_the_lock(tmp_path):
    """The parent dies while it holds the lock; the child lives on, and others can write."""
    code = """
import os, sys, time
from kmsbridge.audit import AuditEvent, AuditTrail
from kmsbridge.policy import AuditPolicy
import kmsbridge.audit.file as audit_file
real = audit_file.encode
def forking(*arguments):
    child = os.fork()
    if child == 0:
        print("child", flush=True)
        sys.stdin.read()
        os._exit(0)
    os.kill(os.getpid(), 9)
audit_file.encode = forking
AuditTrail(AuditPolicy(file=sys.argv[1]), profile="p").record(AuditEvent("wrap"))
"""
    path = tmp_path / "audit.jsonl"
    with subprocess.Popen(
        [sys.executable, "-c", code, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        assert parent.stdout.readline() == "child\n"
        parent.wait()
        AuditTrail(AuditPolicy(file=str(path), required=True), profile="p").record(AuditEvent("wrap"))
        parent.stdin.close()
    assert verify(path).lines == 1
