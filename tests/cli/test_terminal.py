"""The command on a terminal, a real pseudo-terminal that is the controlling one."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

LAUNCH = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(int(sys.argv[1]), termios.TIOCSCTTY, 0)
os.execv(sys.argv[2], sys.argv[2:])
"""
COMMAND = str(Path(sys.executable).with_name("kmsbridge"))


@dataclass
class Terminal:
    """The master's side; `screen` is all that was shown so far."""

    master: int
    process: subprocess.Popen[bytes]
    screen: bytes = field(default=b"")

    def expect(self, text: bytes) -> None:
        """Read until `text` was shown."""
        start = len(self.screen)
        while text not in self.screen[start:]:
            data = self._read()
            assert data, f"{text!r} is not among {self.screen!r}"

    def type(self, text: bytes) -> None:
        os.write(self.master, text)

    def end(self) -> int:
        while self._read():
            pass
        return self.process.wait(60)

    def _read(self) -> bytes:
        try:
            data = os.read(self.master, 65536)
        except OSError:  # Linux's way of saying that the other side is closed
            data = b""
        self.screen += data
        return data


@contextmanager
def terminal(*args: str, only: tuple[str, ...] = ("stdin", "stdout", "stderr")) -> Iterator[Terminal]:
    """A process whose `only` streams are a terminal; the others are empty or pipes."""
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (40, 100))
    streams: dict[str, Any] = {
        "stdin": subprocess.DEVNULL,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
    }
    streams |= dict.fromkeys(only, slave)
    process = subprocess.Popen(
        [sys.executable, "-c", LAUNCH, str(slave), COMMAND, *args],
        pass_fds=(slave,),
        env={**os.environ, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8"},
        **streams,
    )
    os.close(slave)
    with process:
        try:
            yield Terminal(master, process)
        finally:
            process.kill()
            os.close(master)


@pytest.mark.parametrize(
    "payload",
    (b"\0", b"\x1b[2J", b"\xff", "\x9b2J".encode(), b"text, then \x07", b"a" * 3_000_000 + b"\x1b"),
    ids=("NUL", "escape", "not UTF-8", "C1 control", "bell", "escape at the end"),
)
@pytest.mark.parametrize("source", ("file", "armored file"))
def test_binary_plaintext_is_not_shown(home, payload, source):
    """The terminal gets one line that says what to do, and nothing that could drive it."""
    home.write("message", home.ok("encrypt", *(("-a",) if source != "file" else ()), stdin=payload))
    with terminal("decrypt", "message") as tty:
        assert tty.end() == 1
    assert b"-o -" in tty.screen
    assert b"\x1b" not in tty.screen
    assert payload[-1:] not in tty.screen.replace(b"kmsbridge", b"") or payload[-1:] == b"J"


def test_text_is_shown(home):
    """Text of any script goes to the terminal as it is, over the edges of chunks too."""
    text = "日本語 🔑\tñ\n" * 5000
    home.write("message", home.ok("encrypt", stdin=text.encode()))
    with terminal("decrypt", "message") as tty:
        assert tty.end() == 0
    assert tty.screen.decode().replace("\r\n", "\n") == text


def test_binary_is_shown_where_it_was_asked_for(home):
    """-o - writes to the terminal whatever it is."""
    home.write("message", home.ok("encrypt", stdin=b"\x1b[0m"))
    with terminal("decrypt", "message", "-o", "-") as tty:
        assert tty.end() == 0
    assert tty.screen == b"\x1b[0m"


def test_messages_are_not_shown_in_binary(home):
    """encrypt wants --armor or a file for a terminal."""
    home.write("plain", b"x")
    with terminal("encrypt", "plain") as tty:
        assert tty.end() == 1
    assert b"--armor" in tty.screen
    with terminal("encrypt", "plain", "--armor") as tty:
        assert tty.end() == 0
    assert tty.screen.startswith(b"kmsb1_")


def test_typing_a_payload(home):
    """From a terminal the command says how to end, and reads until then."""
    with terminal("encrypt", "--armor") as tty:
        tty.expect(b"Ctrl-D")
        tty.type(b"payload\n\x04")
        assert tty.end() == 0
    assert home.ok("decrypt", stdin=tty.screen.split()[-1]) == b"payload\n"


@pytest.mark.parametrize("command", ("encrypt", "decrypt"))
def test_progress_on_a_terminal(home, command):
    """A bar with rate and time left for what is large, which vanishes at the end."""
    home.write("encrypt", bytes(9 << 20))
    home.ok("encrypt", "encrypt", "-o", "decrypt")
    with terminal(command, command, "-o", "target") as tty:
        assert tty.end() == 0
    assert f"{command}ing".encode() in tty.screen
    assert b"/s" in tty.screen
    assert b":" in tty.screen
    assert tty.screen.endswith(b"\x1b[2K")


@pytest.mark.parametrize("why", ("--quiet", "small", "stderr is no terminal"))
def test_no_progress_where_nobody_wants_it(home, why):
    """Nothing at all is shown."""
    home.write("plain", bytes(1 << 20 if why == "small" else 9 << 20))
    only = ("stdin", "stdout") if why == "stderr is no terminal" else ("stdin", "stdout", "stderr")
    flags = ("--quiet",) if why == "--quiet" else ()
    with terminal("encrypt", "plain", "-o", "target", *flags, only=only) as tty:
        assert tty.end() == 0
        assert tty.process.stderr is None or tty.process.stderr.read() == b""
    assert tty.screen == b""


def test_ctrl_c_on_a_terminal_leaves_nothing(home):
    """The key itself, while the bar is shown."""
    with open("big", "wb") as file:
        file.truncate(1 << 30)
    before = set(os.listdir())
    with terminal("encrypt", "big", "-o", "target") as tty:
        tty.expect(b"encrypting")
        tty.type(b"\x03")
        assert tty.end() == 130
    assert set(os.listdir()) == before
    assert b"Traceback" not in tty.screen


def test_a_passphrase_is_asked_for_twice_and_not_shown(empty):
    """What is typed does not appear, and opens the key file."""
    with terminal("init", "--passphrase") as tty:
        for prompt in (b"Passphrase: ", b"again: "):
            tty.expect(prompt)
            tty.type(b"correct horse\n")
        assert tty.end() == 0, tty.screen
    assert b"correct" not in tty.screen
    env = {"KMSBRIDGE_PASSPHRASE": "correct horse"}
    assert empty.ok("decrypt", stdin=empty.ok("encrypt", stdin=b"x", env=env), env=env) == b"x"


@pytest.mark.parametrize(
    "typed", ((b"hunter\n", b"two\n"), (b"\n",), (b"\x03",), (b"hunter\n", b"\x03")), ids=repr
)
def test_a_passphrase_that_was_not_given_makes_nothing(empty, typed):
    """Two that differ, an empty one, Ctrl-C: nothing is on disk."""
    with terminal("init", "--passphrase") as tty:
        for prompt, text in zip((b"Passphrase: ", b"again: "), typed, strict=False):
            tty.expect(prompt)
            tty.type(text)
        assert tty.end() == (130 if typed[-1] == b"\x03" else 1)
    assert os.listdir() == []
    assert b"Traceback" not in tty.screen
    assert b"hunter" not in tty.screen
