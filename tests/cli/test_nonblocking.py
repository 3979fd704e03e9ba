"""Standard input and output that do not block, as node, ssh and terminals shared with others leave them."""

from __future__ import annotations

import os
import subprocess
import threading
import time

import pytest

from tests.cli.conftest import Home
from tests.support import PATIENCE

PLAIN = os.urandom(700_000)


def slowly(descriptor: int, data: bytes) -> None:
    """Write `data` to a pipe with a pause before each of the first pieces, and close it."""
    with os.fdopen(descriptor, "wb", buffering=0) as file:
        for number, at in enumerate(range(0, len(data), 50_000)):
            time.sleep(0.05 if number < 5 else 0)
            part = memoryview(data)[at : at + 50_000]
            while part:
                part = part[os.write(file.fileno(), part) :]


def late(descriptor: int) -> bytes:
    """All that comes out of a pipe, read when it has long been full, and with a pause after each of the first reads."""
    time.sleep(0.5)
    parts = []
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        while part := file.read(30_000):
            parts.append(part)
            time.sleep(0.02 if len(parts) < 10 else 0)
    return b"".join(parts)


def through(home: Home, data: bytes, *args: str) -> bytes:
    """Return the output of `kmsbridge args` for the input `data`, between two pipes whose ends do not block on its side."""
    (source, feed), (drain, target) = os.pipe(), os.pipe()
    os.set_blocking(source, False)
    os.set_blocking(target, False)
    process = home.start(*args, stdin=source, stdout=target, stderr=subprocess.PIPE)
    os.close(source)
    os.close(target)
    feeder = threading.Thread(target=slowly, args=(feed, data), daemon=True)
    feeder.start()
    out = late(drain)
    _, err = process.communicate(timeout=PATIENCE)
    feeder.join(PATIENCE)
    assert (process.returncode, err) == (0, b"")
    return out


@pytest.mark.parametrize("armor", ((), ("--armor",)), ids=("binary", "armored"))
def test_what_goes_in_comes_out_with_a_slow_peer_at_both_ends(home: Home, armor: tuple[str, ...]) -> None:
    """Far more than a pipe holds, in both forms, by each command that takes a pipe."""
    message = through(home, PLAIN, "encrypt", *armor)
    again = through(home, message, "rewrap", "-")
    assert through(home, again, "decrypt") == PLAIN


def test_inspecting_reads_to_the_end(home: Home) -> None:
    """The body's length is that of the whole message."""
    message = through(home, PLAIN, "encrypt")
    assert f"{len(PLAIN):,} bytes" in through(home, message, "inspect", "-").decode()


def test_a_file_goes_to_a_pipe_that_does_not_block(home: Home) -> None:
    """Also from a file, which is opened as one."""
    home.write("message", through(home, PLAIN, "encrypt"))
    assert through(home, b"", "decrypt", "message") == PLAIN
