"""The audit file: many threads and processes append to it, one whole line at a time."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

from kmsbridge import forks
from kmsbridge.atomic import sync_folder
from kmsbridge.audit.chain import MAX_LINE, START, Link, decode, encode, link_of
from kmsbridge.audit.event import timestamp
from kmsbridge.errors import AuditError

LOCK_WAIT: Final = 5.0
"""Seconds to wait for another process, or thread, that is writing."""

_SPAN: Final = 64 * 1024
_FLAGS: Final = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class AuditFile:
    """Appends lines to a chain. With `durable`, each line is on disk when `append` returns.

    The file is created 0600, and never reached through a symbolic link. One that was moved away by log
    rotation is left; a new file begins a new chain. What a crash left of a line is cut off, and a
    `recover` line says how many bytes that were.
    """

    def __init__(self, path: str, *, durable: bool) -> None:
        self._path = path
        self._durable = durable
        self._descriptors: list[int] = []
        self._writer: int | None = None
        """The thread that is in the midst of writing."""
        self._end: tuple[tuple[int, int, int], Link] | None = None
        forks.watch(self)

    def check(self) -> None:
        """Create the file, or see that it can be opened. Raises `OSError` or `AuditError`."""
        with self._locked():
            pass

    def append(self, fields: Mapping[str, Any]) -> None:
        """Add one line. Raises `OSError` or `AuditError`, and then no line was added."""
        with self._locked() as descriptor:
            size = os.fstat(descriptor).st_size
            end, whole = self._find_end(descriptor, size)
            lines = b""
            if whole != size:
                os.ftruncate(descriptor, whole)
                lines, end = encode(_recovery(size - whole), end)
            line, end = encode(fields, end)
            self._write(descriptor, lines + line, whole)
            self._end = (_identity(os.fstat(descriptor)), end)

    def after_fork(self) -> None:
        """Close the descriptors that other threads were writing through: they would keep the parent's lock."""
        self._writer = None
        descriptors, self._descriptors = self._descriptors, []
        for descriptor in descriptors:
            os.close(descriptor)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        """The file, open and locked against the threads and processes that write it."""
        me = threading.get_ident()
        if self._writer == me:
            raise AuditError(
                f"{self._path} is being written by what this interrupts",
                remedy="let the signal handler put its work into a queue",
            )
        give_up = time.monotonic() + LOCK_WAIT
        while True:
            # Each writer has a descriptor of its own, so the file's lock holds between threads too.
            with self._opened() as descriptor:
                lock(descriptor, fcntl.LOCK_EX, give_up, self._path)
                try:
                    self._writer = me
                    if self._is_current(descriptor):
                        yield descriptor
                        return
                finally:
                    self._writer = None
                    # Closing is not enough: a child forked meanwhile may hold the descriptor too.
                    fcntl.flock(descriptor, fcntl.LOCK_UN)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[int]:
        new = self._durable and not os.path.lexists(self._path)
        descriptor = os.open(self._path, _FLAGS, 0o600)
        self._descriptors.append(descriptor)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise AuditError(f"{self._path} is not a regular file", remedy="name another audit file")
            if new:
                sync_folder(os.path.dirname(self._path) or ".")
            yield descriptor
        finally:
            self._descriptors.remove(descriptor)
            os.close(descriptor)

    def _is_current(self, descriptor: int) -> bool:
        """Whether the locked file still has our path; while we waited it may have been moved away."""
        try:
            return os.path.samestat(os.lstat(self._path), os.fstat(descriptor))
        except FileNotFoundError:
            return False

    def _find_end(self, descriptor: int, size: int) -> tuple[Link, int]:
        """The chain's end, and how many of the file's `size` bytes are whole lines."""
        if self._end is not None and self._end[0] == _identity(os.fstat(descriptor)):
            # Ours was the last line. What it was is remembered rather than read, so that a change made
            # to it since then breaks the chain.
            return self._end[1], size
        tail = _read_tail(descriptor, size)
        before, newline, torn = tail.rpartition(b"\n")
        line = before.rpartition(b"\n")[2]
        if not looks_torn(torn) or (not newline and len(tail) < size):
            raise _foreign(self._path)
        if not newline:
            return Link(), 0
        fields = decode(line)
        if fields is None:
            raise _foreign(self._path)
        return link_of(line, fields), size - len(torn)

    def _write(self, descriptor: int, lines: bytes, size: int) -> None:
        try:
            if os.write(descriptor, lines) != len(lines):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if self._durable:
                os.fsync(descriptor)
        except BaseException:
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, size)
            raise


def _read_tail(descriptor: int, size: int) -> bytes:
    """The end of the file, with at least its last whole line and what follows that."""
    tail = os.pread(descriptor, _SPAN, max(0, size - _SPAN))
    if tail.count(b"\n") > 1 or len(tail) == size:
        return tail
    return os.pread(descriptor, 2 * MAX_LINE, max(0, size - 2 * MAX_LINE))


def lock(descriptor: int, kind: int, give_up: float, path: str) -> None:
    """Take a lock on an open file, or raise `AuditError` once the clock passes `give_up`."""
    pause = 0.0005
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > give_up:
                raise _busy(path) from None
        else:
            return
        time.sleep(pause)
        pause = min(2 * pause, 0.02)


def _identity(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_dev, status.st_ino, status.st_size


def looks_torn(torn: bytes) -> bool:
    """Whether the end of a file is the beginning of a line that was not written to its end."""
    # A power cut can leave zeros where a line's bytes had not reached the disk.
    return START.startswith(torn.rstrip(b"\0")[: len(START)])


def _recovery(cut: int) -> dict[str, Any]:
    return {"time": timestamp(time.time()), "operation": "recover", "outcome": "ok", "cut_bytes": cut}


def _busy(path: str) -> AuditError:
    return AuditError(
        f"{path} stayed locked for {LOCK_WAIT:g} seconds", remedy="see which process holds it, as with fuser"
    )


def _foreign(path: str) -> AuditError:
    return AuditError(
        f"{path} does not end as an audit file does",
        remedy="run 'kmsbridge audit verify' on it, then move it away or name another audit file",
    )
