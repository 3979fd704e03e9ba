"""Runs a command as a child process, and again when the values in its environment have changed.

A forked process decrypts the environment and then becomes the command, so the parent never holds a plaintext, a key
or a client of a key service. It knows that a value has changed by a keyed hash of the environment.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, NoReturn

from kmsbridge.cli.exits import CommandError, code_of

STOP_SECONDS: Final = 10.0
"""A process that is replaced gets SIGKILL if it has not ended so long after it was told to."""

_ENDING: Final = {signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM}
_PASSED_ON: Final = _ENDING | {signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH}
_WAITED_FOR: Final = _PASSED_ON | {signal.SIGCHLD, signal.SIGALRM}
_PR_SET_PDEATHSIG: Final = 1
_NOT_RELOADED: Final = "not reloaded"
_BY_SIGNAL: Final = 128
"""The exit code of a process that a signal ended is this and the signal's number."""

Environment = Mapping[bytes, bytes]


@dataclass(slots=True)
class _Successor:
    """A forked process that decrypts the environment, and becomes the command when it is told to."""

    pid: int
    channel: socket.socket
    digest: bytes = b""
    """The hash of the environment, once it is decrypted."""


class Supervisor:
    """Keeps one process of a command running, until it ends by itself.

    `load` returns the whole environment; `become` replaces the process by the command in that environment. Both are
    called in forked processes only. `report` prints an error after a prefix, `say` a notice. On `reload_on` the
    environment is loaded again; if that succeeds and it has changed, the command gets `stop_signal`, and SIGKILL after
    `STOP_SECONDS`, and is started again.
    """

    def __init__(
        self,
        load: Callable[[], Environment],
        become: Callable[[Environment], NoReturn],
        *,
        reload_on: signal.Signals,
        stop_signal: signal.Signals,
        report: Callable[[BaseException, str], None],
        say: Callable[[str], None],
    ) -> None:
        self._load, self._become, self._report, self._say = load, become, report, say
        self._reload_on, self._stop_signal = reload_on, stop_signal
        self._hash_key = secrets.token_bytes(32)
        self._current = 0
        """The process id of the command, 0 before it is started for the first time."""
        self._digest = b""
        self._successor: _Successor | None = None
        self._reload_again = False
        """True if the reload signal came while a successor was loading, which may have read the old values."""
        self._kill_at: float | None = None
        """When the command is killed, if it was told to stop."""
        self._code: int | None = None

    def run(self) -> int:
        """Return the exit code of the command, or of loading its environment for the first time.

        A code above 128 is 128 and the number of the signal that ended the command. The signals that are passed on to
        the command stay blocked: the calling process ends with this code and does nothing else.
        """
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, _WAITED_FOR)
        self._handlers = {each: signal.getsignal(each) for each in _WAITED_FOR}
        for each in _WAITED_FOR:
            # A signal that is ignored, by default or as under nohup, would not be waited for on every system.
            signal.signal(each, lambda *_: None)
        self._fork_successor()
        while self._code is None:
            number, by_terminal = _wait()
            if number == signal.SIGCHLD:
                self._collect_ended()
                self._ask_successor()
            elif number == signal.SIGALRM:
                self._kill_when_due()
            elif number == self._reload_on and not by_terminal:
                self._reload()
            else:
                self._pass_on(number, by_terminal=by_terminal)
        self._drop_successor()
        return self._code

    def _reload(self) -> None:
        if self._successor is None:
            self._fork_successor()
        else:
            self._reload_again = True

    def _pass_on(self, number: int, *, by_terminal: bool) -> None:
        """Send a signal to the command. The terminal has sent its own to the command as well."""
        if self._kill_at is not None and number in _ENDING:
            self._drop_successor()  # who ends this program does not want the command started again
        target = self._current or (self._successor.pid if self._successor else 0)
        if target and not by_terminal:
            with contextlib.suppress(PermissionError):  # the command has changed its user
                os.kill(target, number)

    def _collect_ended(self) -> None:
        """Collect every process that has ended: as the first process of a container also those of others."""
        while self._code is None and (ended := _ended()):
            pid, code = ended
            if pid == self._current:
                if self._kill_at is not None and self._successor is not None and self._successor.digest:
                    self._start_successor(self._successor)
                else:
                    self._code = code
            elif self._successor is not None and pid == self._successor.pid:
                self._successor.channel.close()
                self._successor = None
                if not self._current:
                    self._code = code
                    return
                if code > _BY_SIGNAL:  # it could not say so itself
                    problem = f"signal {code - _BY_SIGNAL} ended the process that decrypts"
                    remedy = "check the limits on memory, and send the signal again"
                    self._report(CommandError(problem, remedy=remedy), _NOT_RELOADED)
                self._catch_up()

    def _ask_successor(self) -> None:
        """Go on with the successor if it has loaded the environment."""
        successor = self._successor
        if self._code is not None or successor is None or successor.digest:
            return
        try:
            successor.digest = successor.channel.recv(64)
        except BlockingIOError:
            return
        if not successor.digest:
            return  # it failed, and is collected when it has ended
        if not self._current:
            self._start_successor(successor)
        elif successor.digest == self._digest:
            self._drop_successor()
            self._say(f"no value has changed, so process {self._current} goes on")
            self._catch_up()
        else:
            self._stop_current()

    def _stop_current(self) -> None:
        try:
            os.kill(self._current, self._stop_signal)
        except PermissionError:
            self._drop_successor()
            self._refuse(f"process {self._current} has changed its user", "run this command as that user")
        else:
            self._kill_at = time.monotonic() + STOP_SECONDS
            signal.setitimer(signal.ITIMER_REAL, STOP_SECONDS)

    def _refuse(self, problem: str, remedy: str) -> None:
        """Say why the values cannot be loaded again. The command goes on."""
        self._reload_again = False
        self._report(CommandError(problem, remedy=remedy), _NOT_RELOADED)

    def _start_successor(self, successor: _Successor) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        # A successor that was killed meanwhile is collected as the command.
        with successor.channel, contextlib.suppress(OSError):
            successor.channel.send(b"!")
        if self._current:
            self._say(f"values have changed: process {successor.pid} replaces {self._current}")
        self._current, self._digest = successor.pid, successor.digest
        self._successor = self._kill_at = None
        self._catch_up()

    def _catch_up(self) -> None:
        if self._reload_again:
            self._reload_again = False
            self._fork_successor()

    def _kill_when_due(self) -> None:
        if self._kill_at is not None and time.monotonic() >= self._kill_at:
            with contextlib.suppress(PermissionError):  # the command has changed its user meanwhile
                os.kill(self._current, signal.SIGKILL)

    def _drop_successor(self) -> None:
        if self._successor is not None:
            os.kill(self._successor.pid, signal.SIGKILL)
            os.waitpid(self._successor.pid, 0)
            self._successor.channel.close()
            self._successor = None

    def _fork_successor(self) -> None:
        parent = os.getpid()
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        try:
            pid = os.fork()
        except OSError:
            ours.close()
            theirs.close()
            if not self._current:
                raise
            self._refuse("no process can be started", "raise the limits on memory and processes")
            return
        if not pid:
            ours.close()
            self._be_successor(theirs, parent)
        theirs.close()
        self._successor = _Successor(pid, ours)

    def _be_successor(self, channel: socket.socket, parent: int) -> NoReturn:
        code, prefix = 1, _NOT_RELOADED if self._current else ""
        try:
            self._restore_signals()
            _end_with(parent, self._stop_signal)
            environment = self._load()
            channel.send(_digest(self._hash_key, environment))
            os.kill(parent, signal.SIGCHLD)
            if channel.recv(1):
                prefix = ""
                self._become(environment)
        except BaseException as error:  # noqa: BLE001 - a forked process must not return into its parent's frames
            self._report(error, prefix)
            code = code_of(error)
        finally:
            os._exit(code)

    def _restore_signals(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, signal.SIG_IGN if handler is signal.SIG_IGN else signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)


def _wait() -> tuple[int, bool]:
    """Return the number of the next signal, and whether the kernel sent it, as for Ctrl-C on a terminal."""
    if sys.platform == "darwin":
        return signal.sigwait(_WAITED_FOR), False
    got = signal.sigwaitinfo(_WAITED_FOR)
    return got.si_signo, got.si_code > 0


def _ended() -> tuple[int, int] | None:
    """Return the process id and the exit code of a child that has ended."""
    try:
        pid, status = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return None
    code = os.waitstatus_to_exitcode(status) if pid else 0
    return (pid, code if code >= 0 else _BY_SIGNAL - code) if pid else None


def _end_with(parent: int, number: int) -> None:
    """Have this process get a signal when its parent ends, where the system can do that."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def _digest(key: bytes, environment: Environment) -> bytes:
    hashed = hashlib.blake2b(key=key, digest_size=32)
    for pair in sorted(environment.items()):
        for text in pair:
            hashed.update(len(text).to_bytes(8) + text)
    return hashed.digest()
