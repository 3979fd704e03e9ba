"""Standard input and output, and files by the name that the user gave."""

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
    errno.EACCES: "see that this user may read it, and write to its folder",
    errno.EPERM: "see that this user may read it, and write to its folder",
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space, or raise the quota",
    errno.EFBIG: "raise the limit on file sizes",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "check where its symbolic links lead",
    errno.EIO: "check the disk",
    errno.EROFS: "choose a place that can be written",
    errno.EEXIST: "choose another name, or pass --force to replace it",
}


def stdin() -> BinaryIO:
    """Standard input, unbuffered where that is possible: what a pipe has is worked on at once."""
    return _raw(sys.stdin, "input")


def stdout() -> BinaryIO:
    """Standard output, unbuffered where that is possible: a write that fails, fails here."""
    return _raw(sys.stdout, "output")


def _raw(stream: Any, name: str) -> BinaryIO:
    if stream is None:
        raise CommandError(f"standard {name} is closed", remedy="redirect it, or name a file")
    buffer = stream.buffer
    return cast(BinaryIO, getattr(buffer, "raw", buffer))


def is_stdio(name: str | None) -> bool:
    """Whether a file's name stands for standard input or output."""
    return name in (None, DASH)


def is_regular(name: str | None) -> bool:
    """Whether it names a file of which the size is known and any part can be read."""
    if name is None or name == DASH:
        return False
    with contextlib.suppress(OSError, ValueError):
        return stat.S_ISREG(os.stat(name).st_mode)
    return False


def is_device(name: str) -> bool:
    """Whether it names a pipe, a terminal or the like: something that is written to, never replaced."""
    with contextlib.suppress(OSError, ValueError):
        mode = os.stat(name).st_mode
        return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))
    return False


def size_of(name: str | None) -> int:
    """The size of a regular file in bytes; 0 for what has none."""
    return os.stat(name).st_size if name is not None and is_regular(name) else 0


@contextlib.contextmanager
def named(name: str, *others: str) -> Iterator[None]:
    """Let an `OSError` speak of `name`, or of one of `others` if it is about that."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise file_error(error, str(error.filename) if error.filename in others else name) from error


def file_error(error: OSError, name: str) -> CommandError:
    """What went wrong with the file `name`, in the operating system's words."""
    if not error.errno:
        return CommandError(str(error), remedy="name another file")
    if not name:
        return CommandError("an empty name is no file's name", remedy="name a file, or - for a pipe")
    reason = os.strerror(error.errno).lower()
    return CommandError(f"{name}: {reason}", remedy=_REMEDIES.get(error.errno, ""))


class Input(io.RawIOBase):
    """A file that is read from front to back, and waited for; an `OSError` on the way names it."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        super().__init__()
        self._file = file
        self._name = name
        self._start = memoryview(b"")

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """What one read gives."""
        if self._start:
            count = min(len(buffer), len(self._start))
            buffer[:count], self._start = self._start[:count], self._start[count:]
            return count
        with named(self._name):
            return read_into(self._file, memoryview(buffer))

    def unread(self, start: bytes) -> None:
        """Give `start` once more before anything else."""
        self._start = memoryview(start)


@contextlib.contextmanager
def reading(name: str | None) -> Iterator[Input]:
    """The file of that name, or standard input."""
    if name is None or name == DASH:
        yield Input(stdin(), "standard input")
        return
    with named(name):
        file = open(name, "rb", buffering=0)  # noqa: SIM115 - closed below
    with file:
        yield Input(file, name)


@contextlib.contextmanager
def writing(name: str | None, *, mode: int = 0o666, force: bool = False) -> Iterator[BinaryIO]:
    """A file that appears under that name when the block ends well, or standard output, or a device."""
    if name is None or name == DASH:
        with named("standard output"):
            yield stdout()
    elif is_device(name):
        with named(name), open(name, "wb", buffering=0) as device:
            yield device
    else:
        with named(name), atomic.replacing(name, mode=mode, exclusive=not force) as file:
            yield file


def check_target(name: str | None, *, force: bool) -> None:
    """Raise where writing to `name` would replace something that must stay, before any work is done."""
    if name is None or is_stdio(name) or is_device(name):
        return
    with named(name):
        if not name:
            raise FileNotFoundError(errno.ENOENT, "", name)
        if os.path.isdir(name):
            raise IsADirectoryError(errno.EISDIR, "", name)
        if os.path.lexists(name) and not force:
            raise FileExistsError(errno.EEXIST, "", name)
