"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from typing import BinaryIO, Literal

from kmsbridge.streams import write_all

PathLike = str | os.PathLike[str]


def open_regular(path: PathLike, mode: Literal["rb", "r+b"] = "rb") -> BinaryIO:
    """The file at `path`, unbuffered. Raises `OSError` for what is no regular file: a FIFO is not waited for."""

    def without_waiting(name: str, flags: int) -> int:
        return os.open(name, flags | os.O_NONBLOCK)

    file = open(path, mode, buffering=0, opener=without_waiting)  # noqa: SIM115 - for the caller to close
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(
            errno.EINVAL,
            "not a regular file: pipes and devices are for the functions that take streams",
            str(path),
        )
    return file


@contextlib.contextmanager
def replacing(
    path: PathLike, *, mode: int = 0o666, exclusive: bool = False, follow: bool = True
) -> Iterator[BinaryIO]:
    """A new binary file that takes `path`'s place when the block ends, and vanishes when it fails.

    The data is on disk before the name is, and the name is on disk before this returns (fsync of the
    file, rename, fsync of the folder), so after a power cut `path` is the old file or the new one.
    `mode` is subject to the umask. A symbolic link is followed: its target is replaced, the link
    stays; without `follow` the link itself is replaced. With `exclusive`, a `path` that exists is a `FileExistsError` and is left as it was.
    """
    target = os.fspath(os.path.realpath(path) if follow else path)
    if os.path.exists(target) and not os.path.islink(target) and not os.path.isfile(target):
        what = errno.EISDIR if os.path.isdir(target) else errno.EINVAL
        raise OSError(what, "not a regular file, and no other is replaced", target)
    if exclusive and os.path.exists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)
    folder, name = os.path.split(os.fsdecode(target))
    temporary = os.path.join(folder, f".{short_name(name)}.{os.urandom(6).hex()}.tmp")
    try:
        with _create(temporary, mode, target) as file:
            yield file
            os.fsync(file.fileno())
        if exclusive:
            os.link(temporary, target)  # unlike rename, fails where the name exists
            os.unlink(temporary)
        else:
            os.replace(temporary, target)
    except BaseException:
        # Also where creating it failed: a signal can arrive when the file is there and its name is not yet ours.
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    sync_folder(folder or ".")


def _create(temporary: str, mode: int, target: str | bytes) -> BinaryIO:
    try:
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    except OSError as error:
        error.filename = target  # the name that the caller knows
        raise
    return os.fdopen(descriptor, "w+b", buffering=0)


def short_name(name: str) -> str:
    """As much of a file's name as leaves room for more in the 255 bytes that a name may have."""
    return os.fsencode(name)[:200].decode(errors="ignore")


def write(
    path: PathLike, data: bytes, *, mode: int = 0o666, exclusive: bool = False, follow: bool = True
) -> None:
    """Put `data` under `path`, as `replacing` does."""
    with replacing(path, mode=mode, exclusive=exclusive, follow=follow) as file:
        write_all(file, data)


def sync_folder(folder: PathLike) -> None:
    """Put the names in `folder` on disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
