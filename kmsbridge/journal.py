"""Rewrapping a file in place, so that a crash at any point leaves it readable.

The header is overwritten, the body stays where it is. Before that, the old header is put beside the
file, with the first bytes of the body that it belongs to and the hash of the new header. For as long as
that is there, readers use it instead of a header that is not, whole, the new one. Both headers lead to
the same data key, so whichever is read, whole, is right.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import stat
from collections.abc import Iterator
from typing import BinaryIO

from kmsbridge import atomic
from kmsbridge import message as wire
from kmsbridge.atomic import PathLike
from kmsbridge.errors import MessageError
from kmsbridge.streams import write_all

SUFFIX = ".kmsbridge-rewrap"
_LONGEST_NAME = 255
_MARK = 56
"""Bytes of a body that tell it from any other: its salt and commitment."""
_HASH = 32


def header_of(path: PathLike, file: BinaryIO) -> wire.Header:
    """The header of the open `file` at `path`, its body's length checked; the file's position moves."""
    while True:
        start = _start_of(file)
        saved = _saved_header(path, file, start)
        # A start that stays the same while no old header is beside it was not being overwritten.
        if saved is not None or _start_of(file) == start:
            return _checked(saved or wire.parse_header(start), file)


def read_header(file: BinaryIO) -> wire.Header:
    """The header in the open, seekable `file`, its body's length checked; the file's position moves."""
    return _checked(wire.parse_header(_start_of(file)), file)


def replace_header(path: PathLike, file: BinaryIO, old: wire.Header, new: wire.Header) -> None:
    """Put `new`, which is as long as `old`, in front of the body of the open `file` at `path`."""
    saved, packed = _beside(path), new.encode()
    file.seek(old.length)
    entry = old.encode() + read_exactly(file, _MARK) + hashlib.sha256(packed).digest()
    # Whoever may read the file must be able to read this.
    atomic.write(saved, entry, mode=os.fstat(file.fileno()).st_mode & 0o777, follow=False)
    file.seek(0)
    write_all(file, packed)
    os.fsync(file.fileno())
    os.unlink(saved)
    atomic.sync_folder(os.path.dirname(saved))


def interrupted(path: PathLike) -> bool:
    """Whether a rewrap of the file at `path` was broken off; another will finish it."""
    return os.path.lexists(_beside(path))


def forget(path: PathLike) -> None:
    """Remove what an interrupted rewrap left beside `path`, which has another header now."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(_beside(path))


@contextlib.contextmanager
def locked(path: PathLike) -> Iterator[BinaryIO]:
    """The file at `path`, open for change, and locked against others who rewrap it."""
    while True:
        with atomic.open_regular(path, "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            # Whoever held the lock may have put another file in its place.
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                yield file
                return


def _start_of(file: BinaryIO) -> bytes:
    file.seek(0)
    fixed = read_exactly(file, wire.FIXED)
    return fixed + read_exactly(file, max(wire.header_length(fixed) - wire.FIXED, 0))


def _checked(header: wire.Header, file: BinaryIO) -> wire.Header:
    wire.check_body_length(header.kind, file.seek(0, os.SEEK_END) - header.length)
    return header


def _saved_header(path: PathLike, file: BinaryIO, start: bytes) -> wire.Header | None:
    """The header put beside the file, if it is of this body, and `start` is not the one that replaces it."""
    data = _read_beside(path, os.fstat(file.fileno()).st_uid)
    try:
        header = wire.parse_header(data)
    except MessageError:
        return None
    if not header.has_recipients_data_key or len(data) != header.length + _MARK + _HASH:
        return None
    file.seek(header.length)
    # One left over from another file of this name is not for this body.
    of_this = data[header.length : -_HASH] == read_exactly(file, _MARK)
    replaced = data[-_HASH:] == hashlib.sha256(start).digest()
    return header if of_this and not replaced else None


def _read_beside(path: PathLike, owner: int) -> bytes:
    """What is beside the file; nothing where it is not a plain file of who owns the file, or of us.

    Others may be able to put things into the folder: a link, a pipe, something endless.
    """
    try:
        descriptor = os.open(_beside(path), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno is None:
            raise  # not the system's, but a signal handler's
        return b""
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid not in (owner, os.geteuid(), 0):
            return b""
        with open(descriptor, "rb", closefd=False) as saved:
            return saved.read(wire.MAX_HEADER + _MARK + _HASH + 1)
    finally:
        os.close(descriptor)


def _beside(path: PathLike) -> str:
    folder, file_name = os.path.split(os.fsdecode(os.path.realpath(path)))
    name = os.fsencode(file_name)
    if len(name) + len(SUFFIX) > _LONGEST_NAME:
        name = hashlib.sha256(name).hexdigest().encode()
    return os.path.join(folder, os.fsdecode(name) + SUFFIX)


def read_exactly(file: BinaryIO, length: int) -> bytes:
    """`length` bytes from the position on, fewer only at the end."""
    parts = []
    while length and (part := file.read(length)):
        parts.append(part)
        length -= len(part)
    return b"".join(parts)
