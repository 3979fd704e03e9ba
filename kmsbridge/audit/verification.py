"""Verifies the chain of an audit file."""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from kmsbridge.atomic import PathLike
from kmsbridge.audit.chain import MAX_LINE, NO_HASH, START, Link, decode, link_of
from kmsbridge.audit.file import LOCK_WAIT, is_torn_line, lock
from kmsbridge.errors import AuditError


@dataclass(frozen=True, slots=True)
class VerifyResult:
    """The facts of an unbroken chain: the number of lines, the last line's hash, the first and last event's time."""

    lines: int
    head: str
    first_time: str
    last_time: str


def verify(path: PathLike, *, head: str | None = None) -> VerifyResult:
    """Check that no line of an audit file was changed, removed, inserted or moved since it was written.

    Cutting lines off at the end leaves a shorter chain that is still unbroken, and replacing the whole file
    leaves another unbroken chain. To detect these, keep `VerifyResult.head` somewhere else from time to time and
    pass it as `head`: a line with that hash must still exist. Lines appended while this runs are not read.
    Memory is bounded by one line of at most 1 MiB. Raises `AuditError` with the number of the first bad line.
    """
    name = os.fsdecode(path)
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise _unreadable(name, "it is not a regular file")
            with open(descriptor, "rb", buffering=128 * 1024, closefd=False) as file:
                return _verify(name, _lines(name, file), head)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise _unreadable(name, error.strerror) from None
    except ValueError:
        raise _unreadable(name, "invalid file name") from None


def _verify(name: str, lines: Iterator[bytes], head: str | None) -> VerifyResult:
    end, first, last = Link(), "", ""
    head = head.strip().lower() if head is not None else NO_HASH
    found = head == NO_HASH
    for line in lines:
        fields = decode(line)
        if fields is None:
            if not end.seq and not line.startswith(START):
                raise _not_an_audit_line(name, 1)
            raise _broken(name, end.seq + 1, "was changed")
        _check_link(name, fields, end)
        end = link_of(line, fields)
        found = found or end.hash == head
        first, last = first or fields["time"], fields["time"]
    if not found:
        raise AuditError(
            f"no line of {name} has the hash {head[:80]!r}",
            remedy="check that it is the right file; if it is, lines were cut off at its end, or it was replaced",
        )
    return VerifyResult(end.seq, end.hash, first, last)


def _check_link(name: str, fields: dict[str, Any], end: Link) -> None:
    seq, wanted = fields["seq"], end.seq + 1
    if seq > wanted:
        raise _broken(name, wanted, f"is missing: line {seq} of the chain is in its place")
    if seq < wanted:
        raise _broken(name, wanted, f"was inserted or moved: it is line {seq} of a chain")
    if fields["prev"] != end.hash:
        raise _broken(name, wanted, "does not follow the line before it: one of the two was replaced")


def _lines(name: str, file: BinaryIO) -> Iterator[bytes]:
    """Yield the lines that the file has at the start, without their newlines."""
    left, number = _size(name, file.fileno()), 0
    while left > 0:
        number += 1
        line = file.readline(min(left, MAX_LINE + 1))
        left -= len(line)
        if len(line) > MAX_LINE:
            raise _broken(name, number, "is longer than 1 MiB")
        if not line.endswith(b"\n"):
            if not is_torn_line(line):
                raise _not_an_audit_line(name, number)
            raise _broken(
                name,
                number,
                "is incomplete, as after a crash",
                "record another event, which cuts it off and records that, and verify again",
            )
        yield line[:-1]


def _size(name: str, descriptor: int) -> int:
    """Return the file's size at a moment when no line is being written."""
    lock(descriptor, fcntl.LOCK_SH, time.monotonic() + LOCK_WAIT, name)
    try:
        return os.fstat(descriptor).st_size
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def _unreadable(name: str, reason: str | None) -> AuditError:
    return AuditError(f"the audit file {name!r} cannot be read ({reason})", remedy="check the path")


def _not_an_audit_line(name: str, number: int) -> AuditError:
    return AuditError(f"line {number} of {name} is not a line of an audit file", remedy="name an audit file")


def _broken(name: str, number: int, problem: str, remedy: str = "") -> AuditError:
    return AuditError(
        f"line {number} of {name} {problem}",
        remedy=remedy
        or "compare the file with a copy, and find out who may write it; the lines before this one are intact",
    )
