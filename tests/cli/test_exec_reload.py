"""`kmsbridge exec --reload-on`: the parent of a command, which it runs again when a value has changed."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

from tests.secrets import searching
from tests.support import PATIENCE

# Writes what it was started with, and which signals it gets, a line each.
SCRIPT = """
echo "start $$ $KEY" >> log
trap 'echo got USR2 >> log' USR2
trap 'echo got INT >> log; exit 3' INT
trap 'echo got QUIT >> log; exit 4' QUIT
trap 'echo got TERM >> log; exit 7' TERM
echo ready >> log
while :; do sleep 0.02; done
"""
IGNORES_TERM = SCRIPT.replace("; exit 7", "")
IMPATIENT = """
import sys
from kmsbridge.cli import main, supervisor
supervisor.STOP_SECONDS = 0.3
sys.exit(main())
"""

# Unlike a shell, it notes each of two signals that follow one another at once.
COUNTS = """
import signal
signals = {signal.SIGINT, signal.SIGTERM}
signal.pthread_sigmask(signal.SIG_BLOCK, signals)
with open("log", "a", buffering=1) as log:
    log.write("ready\\n")
    while signal.sigwaitinfo(signals).si_signo == signal.SIGINT:
        log.write("got INT\\n")
"""
# Loads slowly: waits after reading the file, while there is a file named hold.
SLOW = """
import os, sys, time
from kmsbridge.cli import execute, main
load = execute._environment
def slowly(*arguments):
    environment = load(*arguments)
    with open("loads", "a") as file:
        file.write("x")
    while os.path.exists("hold"):
        time.sleep(0.01)
    return environment
execute._environment = slowly
sys.exit(main())
"""
# The second fork fails, as where there are too many processes.
NO_FORK = """
import os, sys
from kmsbridge.cli import main
fork, forked = os.fork, []
def fork_once():
    if forked:
        raise BlockingIOError(11, "no more")
    forked.append(1)
    return fork()
os.fork = fork_once
sys.exit(main())
"""
# The command may not be stopped, as where it has become another user's.
NO_KILL = """
import os, signal, sys
from kmsbridge.cli import main
kill = os.kill
def kill_but_not_stop(pid, number):
    if number == signal.SIGTERM:
        raise PermissionError(1, "not allowed")
    kill(pid, number)
os.kill = kill_but_not_stop
sys.exit(main())
"""

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


def until(happened):
    """Return what `happened()` returns, as soon as that is true."""
    deadline = time.monotonic() + PATIENCE
    while not (result := happened()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)
    return result


class Exec:
    """A running `kmsbridge exec`, what its command logged, and what it said itself."""

    def __init__(self, home, *options, script=SCRIPT, program=None):
        self.home = home
        command = ["exec", "--env-file", "key.env", "--reload-on", "HUP", *options, "--", "sh", "-c", script]
        self._errors = (home.path / "errors").open("wb")
        self.process = subprocess.Popen(
            [*(program or [home.command]), *command],
            cwd=home.path,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
        )
        until(lambda: "ready" in self.log or self.process.poll() is not None)

    @property
    def log(self):
        path = self.home.path / "log"
        return path.read_text().splitlines() if path.exists() else []

    @property
    def said(self):
        return (self.home.path / "errors").read_text().splitlines()

    @property
    def starts(self):
        """(process id, key) of each start."""
        return [tuple(line.split()[1:]) for line in self.log if line.startswith("start")]

    def send(self, number):
        self.process.send_signal(number)

    def reload(self):
        """Send the signal, and give the line that says what came of it."""
        before = len(self.said)
        self.send(signal.SIGHUP)
        (line,) = until(lambda: self.said[before:])
        return line

    def end(self):
        code = self.process.wait(PATIENCE)
        self._errors.close()
        return code


@pytest.fixture
def armored(home):
    return lambda text: home.ok("encrypt", "--armor", stdin=text.encode()).decode().strip()


@pytest.fixture
def running(home, armored):
    """Starts it with the key `canary-1` in its file; what is left of it is killed."""
    started = []
    home.write("key.env", f"KEY={armored('canary-1')}\n")

    def start(*options, **more):
        started.append(Exec(home, *options, **more))
        return started[-1]

    yield start
    for each in started:
        for pid in (int(pid) for pid, _ in each.starts):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        each.process.kill()
        each.end()


def test_a_changed_value_restarts_the_command(home, armored, running):
    """The old process has ended before the new one starts; one line says so, and none says the value."""
    it = running()
    home.write("key.env", f"KEY={armored('canary-2')}\n")
    line = it.reload()
    until(lambda: it.log.count("ready") == 2)
    (old, first), (new, second) = it.starts
    assert (first, second) == ("canary-1", "canary-2")
    assert it.log[2] == "got TERM"
    assert line == f"kmsbridge: values have changed: process {new} replaces {old}"
    assert "canary" not in "".join(it.said)
    it.send(signal.SIGTERM)
    assert it.end() == 7


def test_a_value_that_is_the_same_leaves_the_command_alone(home, armored, running):
    """Encrypted anew, which changes every byte of the message, and with more comments."""
    it = running()
    home.write("key.env", f"# again\nKEY='{armored('canary-1')}'\n")
    ((pid, _),) = it.starts
    assert it.reload() == f"kmsbridge: no value has changed, so process {pid} goes on"
    assert "got TERM" not in it.log


def test_what_cannot_be_loaded_leaves_the_command_alone(home, armored, running, one_line):
    """One line says why; the next signal after it was mended is obeyed."""
    it = running()
    for content, says in (
        ("A=1\nKEY=kmsb1_canary", "key.env: line 2: the variable KEY: "),
        ("KEY='canary", "key.env: line 1 is not NAME=VALUE"),
        (None, "key.env: no such file or directory"),
    ):
        os.unlink("key.env")
        if content is not None:
            home.write("key.env", content)
        assert one_line(it.reload() + "\n").startswith(f"not reloaded: {says}")
    assert "canary" not in "".join(it.said)
    assert len(it.starts) == 1
    home.write("key.env", f"KEY={armored('canary-3')}\n")
    assert "replaces" in it.reload()
    until(lambda: it.log.count("ready") == 2)
    assert it.starts[1][1] == "canary-3"


@pytest.mark.parametrize(
    ("broken", "says"), ((NO_FORK, "no process can be started"), (NO_KILL, "has changed its user"))
)
def test_what_the_system_refuses_leaves_the_command_alone(home, armored, running, broken, says):
    """It can be ended as before, where this program may do that."""
    it = running(program=[sys.executable, "-c", broken])
    home.write("key.env", f"KEY={armored('canary-2')}\n")
    assert it.reload().startswith("kmsbridge: not reloaded: ")
    assert says in it.said[0]
    assert len(it.starts) == 1
    it.send(signal.SIGINT)
    assert it.end() == 3


def test_a_signal_during_a_reload_is_not_lost(home, armored, running):
    """The command runs in the end with what was written after the file was read."""
    it = running(program=[sys.executable, "-c", SLOW])
    home.write("hold")
    for key, loads in (("canary-2", 2), ("canary-3", 2)):
        home.write("key.env", f"KEY={armored(key)}\n")
        it.send(signal.SIGHUP)
        until(lambda expected=loads: (home.path / "loads").read_text().count("x") == expected)
    os.unlink("hold")
    until(lambda: it.log.count("ready") == 3)
    assert [key for _, key in it.starts] == ["canary-1", "canary-2", "canary-3"]


@on_linux
def test_a_reload_that_is_killed_is_told_and_leaves_the_command_alone(home, running):
    """As where memory is short."""
    it = running(program=[sys.executable, "-c", SLOW])
    home.write("hold")
    it.send(signal.SIGHUP)
    until(lambda: (home.path / "loads").read_text() == "xx")
    ((command, _),) = it.starts
    (loading,) = {pid for pid, _ in children(it.process.pid)} - {int(command)}
    os.kill(loading, signal.SIGKILL)
    (line,) = until(lambda: it.said)
    assert line.startswith("kmsbridge: not reloaded: signal 9 ended the process that decrypts; ")
    os.unlink("hold")
    assert it.reload() == f"kmsbridge: no value has changed, so process {command} goes on"
    assert len(it.starts) == 1


def test_signals_are_passed_on_and_the_exit_code_is_that_of_the_command(running):
    """A signal that the command lives on after is no end of this program either."""
    it = running()
    it.send(signal.SIGUSR2)
    until(lambda: "got USR2" in it.log)
    it.send(signal.SIGINT)
    assert it.end() == 3
    assert it.log[2:] == ["got USR2", "got INT"]


@pytest.mark.parametrize(("script", "code"), (("exit 33", 33), ("kill -KILL $$", 137), ("true", 0)))
def test_a_command_that_ends_is_not_started_again(running, script, code):
    """Whoever started this program sees its code and decides."""
    it = running(script=f"echo ready >> log; {script}")
    assert it.end() == code
    assert it.log == ["ready"]


def test_what_fails_before_the_first_start_is_the_end(home, running, one_line):
    """With the codes that there are without the option."""
    home.write("key.env", "KEY=kmsb1_canary\n")
    it = running()
    assert it.end() == 4
    assert one_line("\n".join(it.said) + "\n").startswith("key.env: line 1: the variable KEY: ")
    home.write("key.env", "KEY=1\n")
    done = home.real("exec", "--env-file", "key.env", "--reload-on", "usr1", "--", "no-such-command-here")
    assert done.code == 127
    assert "no command" in one_line(done.err)


def test_a_command_that_does_not_stop_is_killed(home, armored, running):
    """After a bounded wait, and the new one is started all the same."""
    it = running(script=IGNORES_TERM, program=[sys.executable, "-c", IMPATIENT])
    home.write("key.env", f"KEY={armored('canary-2')}\n")
    it.send(signal.SIGHUP)
    until(lambda: it.log.count("ready") == 2)
    assert [key for _, key in it.starts] == ["canary-1", "canary-2"]
    assert it.log[2] == "got TERM"
    assert it.process.poll() is None


def test_who_ends_this_program_during_a_restart_ends_it(home, armored, running):
    """The command is not started again behind their back."""
    held = "got TERM >> log; while [ -e hold ]; do sleep 0.02; done; exit 7"
    it = running(script=SCRIPT.replace("got TERM >> log; exit 7", held))
    home.write("hold")
    home.write("key.env", f"KEY={armored('canary-2')}\n")
    it.send(signal.SIGHUP)
    until(lambda: "got TERM" in it.log)
    it.send(signal.SIGTERM)
    os.unlink("hold")  # of the signals that wait for the parent, it takes SIGTERM before SIGCHLD
    assert it.end() == 7
    assert len(it.starts) == 1


def test_the_signal_that_stops_the_command_can_be_chosen(home, armored, running):
    """And the notices can be left out."""
    it = running("--stop-signal", "quit", "--quiet")
    home.write("key.env", f"KEY={armored('canary-2')}\n")
    it.send(signal.SIGHUP)
    until(lambda: it.log.count("ready") == 2)
    assert (it.log[2], it.said) == ("got QUIT", [])


@on_linux
def test_nothing_is_left_behind(home, armored, running):
    """After restarts and failures there is one child and no zombie, and it ends with its parent."""
    it = running()
    for n in range(3):
        home.write("key.env", f"KEY={armored(f'canary-{n}')}\n" if n != 1 else "broken")
        it.reload()
    pid = int(until(lambda: it.starts[-1][1] == "canary-2" and it.log[-1] == "ready" and it.starts[-1][0]))
    until(lambda: children(it.process.pid) == [(pid, "S")])
    assert descriptors(it.process.pid) <= {0, 1, 2}
    assert descriptors(pid) <= {0, 1, 2, 10}  # a shell's own
    it.process.kill()
    until(lambda: not os.path.exists(f"/proc/{pid}"))
    assert it.log[-1] == "got TERM"


@on_linux
def test_the_parent_holds_no_plaintext(home, armored, running):
    """Neither before nor after a reload; the same search finds it in the command."""
    it = running()
    home.write("key.env", f"KEY={armored('canary-2')}\n")
    it.reload()
    until(lambda: it.log.count("ready") == 2)
    for key in (b"canary-1", b"canary-2"):
        assert key not in memory(it.process.pid)
        assert key not in Path(f"/proc/{it.process.pid}/environ").read_bytes()
    assert b"canary-2" in memory(int(it.starts[1][0]))


@on_linux
def test_signals_of_the_terminal_reach_the_command_once(home, running):
    """Ctrl-C is sent to both by the terminal, so it is not passed on as well."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads, of pytest's own
        pid, terminal = pty.fork()
    if not pid:
        command = ["exec", "--env-file", "key.env", "--reload-on", "HUP", "--", sys.executable, "-c", COUNTS]
        os.execv(home.command, [home.command, *command])
    with open(terminal, "wb", buffering=0) as keyboard:
        until((home.path / "log").exists)
        for n in range(6):
            until(lambda lines=n + 1: (home.path / "log").read_text().count("\n") >= lines)
            keyboard.write(b"\x03")
        until(lambda: (home.path / "log").read_text().count("\n") >= 7)
        os.kill(pid, signal.SIGTERM)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert (home.path / "log").read_text().splitlines() == ["ready", *["got INT"] * 6]


def test_the_command_has_the_usual_signals_and_the_standard_streams(home):
    """None is blocked, and what was ignored stays ignored."""
    home.write("key.env", "A=1\n")
    show = (
        "import signal, sys; print(sys.stdin.read(), sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())), "
        "[n.name for n in (signal.SIGHUP, signal.SIGTERM, signal.SIGCHLD, signal.SIGUSR1, signal.SIGALRM) "
        "if signal.getsignal(n) is signal.SIG_IGN])"
    )
    options = ("--env-file", "key.env", "--reload-on", "USR1")
    done = home.real("exec", *options, "--", sys.executable, "-c", show, stdin=b"typed")
    assert done.text.strip() == "typed [] []", done.err
    ignoring = f"trap '' HUP; exec kmsbridge exec {' '.join(options)} -- '{sys.executable}' -c \"{show}\""
    assert home.shell(ignoring).text.strip() == "[] ['SIGHUP']"


@pytest.mark.parametrize(
    ("options", "says"),
    (
        (("--reload-on", "HUP"), "--reload-on needs an --env-file"),
        (("--reload-on", "HUP", "--env-file", "/dev/stdin"), "that can be read again"),
        (("--stop-signal", "QUIT"), "--stop-signal needs --reload-on"),
        (("--reload-on", "KILL", "--env-file", "key.env"), "is not one of"),
    ),
)
def test_options_that_do_not_go_together(home, one_line, options, says):
    done = home.run("exec", *options, "--", "touch", "ran")
    assert (done.code, os.path.exists("ran")) == (2, False)
    assert says in one_line(done.err)


def children(parent):
    """The process ids and states of a process's children."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            if int(fields[1]) == parent:
                found.append((int(path.parent.name), fields[0]))
    return found


def descriptors(pid):
    return {int(each.name) for each in Path(f"/proc/{pid}/fd").iterdir()}


def memory(pid):
    """Return all that a process can read of its own memory."""
    return b"".join(data for _, data in searching.memory_of(pid, "r"))
