"""The audit file, to which many threads and processes append whole lines."""

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
"""Seconds to wait for another process or thread that is writing."""

_SPAN: Final = 64 * 1024
_FLAGS: Final = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class AuditFile:
    """An audit file, to which lines are appended. With `durable`, a line is on disk when `append` returns.

    The file is created with mode 0600, and never opened through a symbolic link. After log rotation has moved
    it away, a new file is created and begins a new chain. An incomplete line that a crash left is cut off, and a
    `recover` line says how many bytes were cut.
    """

    def __init__(self, path: str, *, durable: bool) -> None:
        self._path = path
        self._durable = durable
        self._descriptors: list[int] = []
        self._writer: int | None = None
        """The id of the thread that is writing."""
        self._end: tuple[tuple[int, int, int], Link] | None = None
        forks.watch(self)

    def check(self) -> None:
        """Create the file if it is missing, and check that it can be written. Raises `OSError` or `AuditError`."""
        with self._locked():
            pass

    def append(self, fields: Mapping[str, Any]) -> None:
        """Append one line. Raises `OSError` or `AuditError`, in which case no line was appended."""
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
        """Close the descriptors of the parent's other threads: they would keep the parent's lock."""
        self._writer = None
        descriptors, self._descriptors = self._descriptors, []
        for descriptor in descriptors:
            os.close(descriptor)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        """Open the file, locked against all other threads and processes that write it."""
        thread = threading.get_ident()
        if self._writer == thread:
            raise AuditError(
                f"a signal handler recorded an event while the thread it interrupted was writing {self._path}",
                remedy="let the signal handler put its work into a queue",
            )
        give_up = time.monotonic() + LOCK_WAIT
        while True:
            # Every writer has its own descriptor, so the file's lock works between threads too.
            with self._open() as descriptor:
                lock(descriptor, fcntl.LOCK_EX, give_up, self._path)
                try:
                    self._writer = thread
                    if self._is_current(descriptor):
                        yield descriptor
                        return
                finally:
                    self._writer = None
                    # Closing is not enough: a child forked meanwhile may still hold the descriptor.
                    fcntl.flock(descriptor, fcntl.LOCK_UN)

    @contextlib.contextmanager
    def _open(self) -> Iterator[int]:
        new = self._durable and not os.path.lexists(self._path)
        descriptor = os.open(self._path, _FLAGS, 0o600)
        self._descriptors.append(descriptor)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise AuditError(
                    f"the audit file {self._path} is not a regular file", remedy="name another audit file"
                )
            if new:
                sync_folder(os.path.dirname(self._path) or ".")
            yield descriptor
        finally:
            self._descriptors.remove(descriptor)
            os.close(descriptor)

    def _is_current(self, descriptor: int) -> bool:
        """Return whether the locked file is still at its path, or was moved away during the wait."""
        try:
            return os.path.samestat(os.lstat(self._path), os.fstat(descriptor))
        except FileNotFoundError:
            return False

    def _find_end(self, descriptor: int, size: int) -> tuple[Link, int]:
        """Return the chain's end, and how many of the file's `size` bytes are whole lines."""
        if self._end is not None and self._end[0] == _identity(os.fstat(descriptor)):
            # This object wrote the last line. Its hash is remembered rather than read again, so that a change
            # made to the line since then breaks the chain.
            return self._end[1], size
        tail = _read_tail(descriptor, size)
        before, newline, torn = tail.rpartition(b"\n")
        line = before.rpartition(b"\n")[2]
        if not is_torn_line(torn) or (not newline and len(tail) < size):
            raise _not_an_audit_file(self._path)
        if not newline:
            return Link(), 0
        fields = decode(line)
        if fields is None:
            raise _not_an_audit_file(self._path)
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
    """Return the end of the file: at least its last whole line and all that follows."""
    tail = os.pread(descriptor, _SPAN, max(0, size - _SPAN))
    if tail.count(b"\n") > 1 or len(tail) == size:
        return tail
    return os.pread(descriptor, 2 * MAX_LINE, max(0, size - 2 * MAX_LINE))


def lock(descriptor: int, kind: int, give_up: float, path: str) -> None:
    """Lock an open file. Raises `AuditError` where that is not possible before the time `give_up`."""
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


def is_torn_line(end: bytes) -> bool:
    """Return whether the end of a file can be an incompletely written line."""
    # A power cut can leave zeros where a line's bytes had not reached the disk.
    return START.startswith(end.rstrip(b"\0")[: len(START)])


def _recovery(cut: int) -> dict[str, Any]:
    return {"time": timestamp(time.time()), "operation": "recover", "outcome": "ok", "cut_bytes": cut}


def _busy(path: str) -> AuditError:
    return AuditError(
        f"the audit file {path} stayed locked by another process for {LOCK_WAIT:g} seconds",
        remedy=f"find that process, for example with: fuser {path}",
    )


def _not_an_audit_file(path: str) -> AuditError:
    return AuditError(
        f"{path} does not end like an audit file",
        remedy="run 'kmsbridge audit verify' on it, then move it away or name another audit file",
    )
