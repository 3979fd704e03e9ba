"""Opens files, and standard input and output, by the names on the command line."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import stat
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO, Final, cast

from kmsbridge import atomic
from kmsbridge.cli.exits import CommandError
from kmsbridge.streams import read_into

DASH: Final = "-"
_REMEDIES: Final = {
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "check the path",
    errno.EISDIR: "name a file",
    errno.EACCES: "let this user read it, and write to its folder",
    errno.EPERM: "let this user read it, and write to its folder",
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space, or raise the quota",
    errno.EFBIG: "raise the limit on file sizes",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "check where its symbolic links lead",
    errno.EIO: "check the disk",
    errno.EBUSY: "try again when no other program writes to it",
    errno.EROFS: "choose a place that is writable",
    errno.EEXIST: "choose another name, or pass --force to replace it",
}


def stdin() -> BinaryIO:
    """Return standard input, unbuffered if possible, so that the content of a pipe is processed at once."""
    return _raw(sys.stdin, "input")


def stdout() -> BinaryIO:
    """Return standard output, unbuffered if possible, so that a failing write raises at once."""
    return _raw(sys.stdout, "output")


def _raw(stream: Any, name: str) -> BinaryIO:
    if stream is None:
        raise CommandError(f"standard {name} is closed", remedy="redirect it, or name a file")
    buffer = stream.buffer
    return cast(BinaryIO, getattr(buffer, "raw", buffer))


def is_stdio(name: str | None) -> bool:
    """Return whether `name` stands for standard input or output."""
    return name in (None, DASH)


def is_regular(name: str | None) -> bool:
    """Return whether `name` is a regular file, whose size is known and which can be read at random."""
    if name is None or name == DASH:
        return False
    with contextlib.suppress(OSError, ValueError):
        return stat.S_ISREG(os.stat(name).st_mode)
    return False


def is_device(name: str) -> bool:
    """Return whether `name` is a pipe, a terminal or the like, which is written to and never replaced."""
    with contextlib.suppress(OSError, ValueError):
        mode = os.stat(name).st_mode
        return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))
    return False


def size_of(name: str | None) -> int:
    """Return the size of a regular file in bytes, 0 for anything else."""
    return os.stat(name).st_size if name is not None and is_regular(name) else 0


@contextlib.contextmanager
def errors_about(name: str, *others: str) -> Iterator[None]:
    """Turn an `OSError` within the block into a `CommandError` about `name`, or about one of `others` if it names it."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise file_error(error, str(error.filename) if error.filename in others else name) from error


def file_error(error: OSError, name: str) -> CommandError:
    """Return the error for the file `name`, with the operating system's text."""
    if not error.errno:
        return CommandError(str(error), remedy="name another file")
    if not name:
        return CommandError("an empty name is not a file's name", remedy="name a file, or - for a pipe")
    reason = os.strerror(error.errno).lower()
    return CommandError(f"{name}: {reason}", remedy=_REMEDIES.get(error.errno, ""))


class Input(io.RawIOBase):
    """A file that is read from front to back. Reading waits for data, and errors name the file."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        super().__init__()
        self._file = file
        self._name = name
        self._start = memoryview(b"")

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Read once into `buffer`; return the number of bytes read, 0 at the end."""
        if self._start:
            count = min(len(buffer), len(self._start))
            buffer[:count], self._start = self._start[:count], self._start[count:]
            return count
        with errors_about(self._name):
            return read_into(self._file, memoryview(buffer))

    def unread(self, start: bytes) -> None:
        """Make `start` the next bytes that are read."""
        self._start = memoryview(start)


@contextlib.contextmanager
def open_source(name: str | None) -> Iterator[Input]:
    """Open the file `name`, or standard input, for reading."""
    if name is None or name == DASH:
        yield Input(stdin(), "standard input")
        return
    with errors_about(name):
        file = open(name, "rb", buffering=0)  # noqa: SIM115 - closed below
    with file:
        yield Input(file, name)


@contextlib.contextmanager
def open_target(name: str | None, *, mode: int = 0o666, force: bool = False) -> Iterator[BinaryIO]:
    """Open the file `name`, standard output or a device for writing.

    A file appears when the block ends without an error. Without `force`, an existing file is an error.
    """
    if name is None or name == DASH:
        with errors_about("standard output"):
            yield stdout()
    elif is_device(name):
        with errors_about(name), open(name, "wb", buffering=0) as device:
            yield device
    else:
        with errors_about(name), atomic.replacing(name, mode=mode, exclusive=not force) as file:
            yield file


def check_target(name: str | None, *, force: bool) -> None:
    """Raise `CommandError` where `name` cannot be written: it is a folder, or exists and `force` is not given."""
    if name is None or is_stdio(name) or is_device(name):
        return
    with errors_about(name):
        if not name:
            raise FileNotFoundError(errno.ENOENT, "", name)
        if os.path.isdir(name):
            raise IsADirectoryError(errno.EISDIR, "", name)
        if os.path.lexists(name) and not force:
            raise FileExistsError(errno.EEXIST, "", name)
