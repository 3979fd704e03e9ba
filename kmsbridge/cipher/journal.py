"""Rewrapping a file in place, so that a crash at any point leaves it readable.

The header is overwritten, the body stays where it is. Before that, the old header is put beside the
file, with the first bytes of the body that it belongs to; readers prefer it to the one in the file
for as long as it is there. Both headers lead to the same data key, so whichever is read, whole, is right.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from kmsbridge import atomic
from kmsbridge import message as wire
from kmsbridge.atomic import PathLike
from kmsbridge.errors import MessageError

SUFFIX = ".kmsbridge-rewrap"
_MARK = 56
"""Bytes of a body that tell it from any other: its salt and commitment."""


def header_of(path: PathLike, file: BinaryIO) -> wire.Header:
    """The header of the open `file` at `path`, its body's length checked; the file's position moves."""
    return _saved_header(path, file) or read_header(file)


def read_header(file: BinaryIO) -> wire.Header:
    """The header in the open, seekable `file`, its body's length checked; the file's position moves."""
    file.seek(0)
    header = wire.parse_header(read_exactly(file, wire.MAX_HEADER))
    wire.check_body_length(header.kind, file.seek(0, os.SEEK_END) - header.length)
    return header


def replace_header(path: PathLike, file: BinaryIO, old: wire.Header, new: wire.Header) -> None:
    """Put `new`, which is as long as `old`, in front of the body of the open `file` at `path`."""
    saved = _beside(path)
    file.seek(old.length)
    atomic.write(saved, old.encode() + read_exactly(file, _MARK), mode=0o600)
    file.seek(0)
    view = memoryview(new.encode())
    while view:
        view = view[file.write(view) :]
    os.fsync(file.fileno())
    os.unlink(saved)
    atomic.sync_folder(saved.parent)


@contextlib.contextmanager
def locked(path: PathLike) -> Iterator[BinaryIO]:
    """The file at `path`, open for change, and locked against others who rewrap it."""
    while True:
        with open(path, "r+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            # Whoever held the lock may have put another file in its place.
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                yield file
                return


def _saved_header(path: PathLike, file: BinaryIO) -> wire.Header | None:
    try:
        data = _beside(path).read_bytes()
        header = wire.parse_header(data)
    except (FileNotFoundError, MessageError):
        return None
    file.seek(header.length)
    # One left over from another file of this name is not for this body.
    return header if data[header.length :] == read_exactly(file, _MARK) else None


def _beside(path: PathLike) -> Path:
    real = Path(os.path.realpath(path))
    return real.with_name(real.name + SUFFIX)


def read_exactly(file: BinaryIO, length: int) -> bytes:
    """`length` bytes from the position on, fewer only at the end."""
    parts = []
    while length and (part := file.read(length)):
        parts.append(part)
        length -= len(part)
    return b"".join(parts)
