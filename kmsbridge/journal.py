"""Rewrapping a file in place, so that a crash at any point leaves it readable.

The header is overwritten and the body stays where it is. Before that, the old header is saved in a file
beside the message, with the first bytes of the body it belongs to and the hash of the new header. While the saved
file exists, readers use the saved header unless the message begins with the complete new one. Both headers
hold the same data key, so either of them is right as long as it is complete.
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
"""Bytes at the start of a body that differ from every other body's: its salt and commitment."""
_HASH = 32


def header_of(path: PathLike, file: BinaryIO) -> wire.Header:
    """Return the header of the open `file` at `path`, and check its body's length. Moves the file's position."""
    while True:
        start = _start_of(file)
        saved = _saved_header(path, file, start)
        # Without a saved header, a start that reads the same twice was not being overwritten.
        if saved is not None or _start_of(file) == start:
            return _checked(saved or wire.parse_header(start), file)


def read_header(file: BinaryIO) -> wire.Header:
    """Return the header in the open, seekable `file`, and check its body's length. Moves the file's position."""
    return _checked(wire.parse_header(_start_of(file)), file)


def replace_header(path: PathLike, file: BinaryIO, old: wire.Header, new: wire.Header) -> None:
    """Overwrite the header `old` of the open `file` at `path` with `new`, which has the same length."""
    saved, packed = _saved_path(path), new.encode()
    file.seek(old.length)
    entry = old.encode() + read_exactly(file, _MARK) + hashlib.sha256(packed).digest()
    # Readable for every reader of the file: without the saved header they could not decrypt it.
    atomic.write(saved, entry, mode=os.fstat(file.fileno()).st_mode & 0o777, follow=False)
    file.seek(0)
    write_all(file, packed)
    os.fsync(file.fileno())
    os.unlink(saved)
    atomic.sync_folder(os.path.dirname(saved))


def interrupted(path: PathLike) -> bool:
    """Return whether a rewrap of the file at `path` was interrupted; rewrapping it again completes it."""
    return os.path.lexists(_saved_path(path))


def remove_saved_header(path: PathLike) -> None:
    """Remove the header that an interrupted rewrap saved beside `path`, if there is one."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(_saved_path(path))


@contextlib.contextmanager
def locked(path: PathLike) -> Iterator[BinaryIO]:
    """Open the file at `path` for reading and writing, and lock it against other rewraps."""
    while True:
        with atomic.open_regular(path, "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            # The previous holder of the lock may have replaced the file.
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
    """Return the saved header if it belongs to this body and `start` is not the complete new header."""
    data = _read_saved(path, os.fstat(file.fileno()).st_uid)
    try:
        header = wire.parse_header(data)
    except MessageError:
        return None
    if not header.has_recipients_data_key or len(data) != header.length + _MARK + _HASH:
        return None
    file.seek(header.length)
    # A saved header can be left over from another file of this name.
    same_body = data[header.length : -_HASH] == read_exactly(file, _MARK)
    replaced = data[-_HASH:] == hashlib.sha256(start).digest()
    return header if same_body and not replaced else None


def _read_saved(path: PathLike, owner: int) -> bytes:
    """Return the content of the saved file; empty unless it is a regular file of `owner`, this user or root."""
    # Other users may be able to put a link, a pipe or an endless file into the folder.
    try:
        descriptor = os.open(_saved_path(path), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno is None:
            raise  # not from the system: a signal handler raised it
        return b""
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid not in (owner, os.geteuid(), 0):
            return b""
        with open(descriptor, "rb", closefd=False) as saved:
            return saved.read(wire.MAX_HEADER + _MARK + _HASH + 1)
    finally:
        os.close(descriptor)


def _saved_path(path: PathLike) -> str:
    folder, file_name = os.path.split(os.fsdecode(os.path.realpath(path)))
    name = os.fsencode(file_name)
    if len(name) + len(SUFFIX) > _LONGEST_NAME:
        name = hashlib.sha256(name).hexdigest().encode()
    return os.path.join(folder, os.fsdecode(name) + SUFFIX)


def read_exactly(file: BinaryIO, length: int) -> bytes:
    """Read `length` bytes from the file's position on. Returns fewer only at the end of the file."""
    parts = []
    while length and (part := file.read(length)):
        parts.append(part)
        length -= len(part)
    return b"".join(parts)
