"""The command as a process: signals, pipes that break, disks that are full, descriptors that are closed."""

from __future__ import annotations

import errno
import os
import signal
import subprocess

import pytest

from kmsbridge.cli import exits

SIGNALS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


@pytest.fixture
def big(home):
    """A file of 256 MiB that takes no room, and the start of a message of 4 MiB."""
    with open("big", "wb") as file:
        file.truncate(256 << 20)
    home.write("plain", os.urandom(4 << 20))
    home.ok("encrypt", "plain", "-o", "message")
    return home


def end(process: subprocess.Popen[bytes]) -> tuple[int, bytes]:
    _, err = process.communicate(timeout=60)
    return process.returncode, err


@pytest.mark.parametrize("command", ("encrypt", "decrypt"))
@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_a_signal_in_the_middle_leaves_nothing(big, command, number):
    """The target is not there, nor what was to become it; the exit code is 128 and the signal's number."""
    source = {"encrypt": "plain", "decrypt": "message"}[command]
    os.mkfifo("pipe")
    before = set(os.listdir())
    with big.start(command, "pipe", "-o", "target") as process, open("pipe", "wb") as pipe:
        # More than the pipe holds: when all of it is written, some was read and worked on.
        pipe.write((big.path / source).read_bytes()[: 3 << 20])
        pipe.flush()
        (half,) = set(os.listdir()) - before
        assert half.startswith(".target.")
        process.send_signal(number)
        code, err = end(process)
    assert (code, err) == (SIGNALS[number], b"")
    assert set(os.listdir()) == before


@pytest.mark.parametrize("target", ("new", "existing"))
def test_ctrl_c_in_a_big_file_keeps_what_was_there(big, target):
    """A file that was to be replaced is as before; one that was to be made is not there."""
    if target == "existing":
        big.write("target", b"mine")
    before = set(os.listdir())
    with big.start("encrypt", "big", "-o", "target", "--force") as process:
        while process.poll() is None and set(os.listdir()) == before:
            pass
        process.send_signal(signal.SIGINT)
        code, err = end(process)
    assert (code, err) == (130, b"")
    assert set(os.listdir()) == before
    assert target == "new" or (big.path / "target").read_bytes() == b"mine"


def test_a_signal_that_was_ignored_stays_so(home):
    """Under nohup a hangup changes nothing."""
    os.mkfifo("pipe")
    script = ["sh", "-c", 'trap "" HUP; exec "$0" encrypt pipe -o target', home.command]
    with subprocess.Popen(script, stderr=subprocess.PIPE) as process:
        with open("pipe", "wb") as pipe:
            pipe.write(bytes(1 << 20))
            process.send_signal(signal.SIGHUP)
        assert end(process) == (0, b"")
    assert home.ok("decrypt", "target") == bytes(1 << 20)


BROKEN = (
    ("encrypt", "plain"),
    ("decrypt", "message"),
    ("inspect", "message"),
    ("rewrap", "--check", "old"),
    ("keys",),
    ("config", "explain"),
    ("--help",),
    ("--version",),
)


@pytest.mark.parametrize("args", BROKEN, ids=" ".join)
@pytest.mark.parametrize("how", ("broken", "full"))
def test_output_that_nobody_takes(home, one_line, args, how):
    """A broken pipe ends quietly with 141; a full disk is told in one line, with 1."""
    home.write("plain", b"x" * 100_000)
    home.ok("encrypt", "plain", "-o", "message")
    home.ok("encrypt", "plain", "-o", "old")
    home.ok("rotate", "dev", "-q")
    if how == "broken":
        reader, writer = os.pipe()
        os.close(reader)
    else:
        writer = os.open("/dev/full", os.O_WRONLY)
    try:
        done = home.real(*args, stdout=writer)
    finally:
        os.close(writer)
    if how == "broken":
        assert (done.code, done.err) == (exits.BROKEN_PIPE, "")
    else:
        assert done.code == 1
        assert "no space left on device" in one_line(done.err)


def test_a_reader_that_stops_early(home):
    """As with head: no message, whatever the size."""
    home.write("plain", os.urandom(2 << 20))
    home.ok("encrypt", "plain", "-o", "message")
    done = home.shell("kmsbridge decrypt message | head -c 10 | wc -c; echo ${PIPESTATUS[0]}")
    assert done.text.split() == ["10", "141"]
    assert done.err == ""


@pytest.mark.parametrize("command", ("encrypt", "decrypt"))
@pytest.mark.parametrize("source", ("file", "pipe"))
def test_a_file_system_without_room(home, one_line, command, source):
    """One line names the target; nothing is left under its name or any other."""
    home.write("plain", os.urandom(2 << 20))
    home.ok("encrypt", "plain", "-o", "message")
    name = {"encrypt": "plain", "decrypt": "message"}[command]
    before = home.files()
    source = name if source == "file" else f"- < {name}"
    done = home.shell(f"ulimit -f 1024; kmsbridge {command} {source} -o target")
    assert done.code == 1
    assert one_line(done.err).startswith("target: file too large; ")
    assert home.files() == before


@pytest.mark.parametrize("number", (errno.ENOSPC, errno.EDQUOT, errno.EIO), ids=errno.errorcode.get)
@pytest.mark.parametrize(
    "args", (("plain", "-o", "target"), ("-o", "target"), ("-a", "-o", "target")), ids=" ".join
)
def test_a_disk_that_fails_at_the_end(home, one_line, monkeypatch, number, args):
    """What fails at the last moment, when data is put on disk, leaves nothing either."""
    home.write("plain", b"payload")
    before = home.files()

    def fail(_descriptor):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("kmsbridge.atomic.os.fsync", fail)
    done = home.run("encrypt", *args, stdin=b"payload")
    assert done.code == 1
    assert one_line(done.err).startswith(f"target: {os.strerror(number).lower()}")
    assert home.files() == before


@pytest.mark.parametrize("closed", ("0", "1", "2", "0 1 2"))
def test_descriptors_that_are_closed(home, closed):
    """A process without stdin, stdout or stderr writes its files right, and no error into them."""
    home.write("plain", b"payload")
    closing = " ".join(f"{number}>&-" for number in closed.split())
    done = home.shell(f"kmsbridge encrypt plain -o message {closing}")
    assert done.code == 0, done.err
    assert home.ok("decrypt", "message") == b"payload"
    done = home.shell(f"kmsbridge decrypt none -o out {closing}; echo $?")
    assert done.text == "1\n"


def test_errors_do_not_go_to_stdout_without_stderr(home):
    """With stderr closed an error is lost, not mixed into the result."""
    done = home.shell("kmsbridge decrypt none 2>&-")
    assert (done.code, done.out) == (1, b"")


def test_results_need_stdout(home, one_line):
    """With stdout closed a result is not lost silently."""
    done = home.shell("kmsbridge keys >&-")
    assert done.code == 1
    assert "standard output is closed" in one_line(done.err)
