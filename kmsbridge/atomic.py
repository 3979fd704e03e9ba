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
    """Open the regular file at `path`, unbuffered.

    Raises `OSError` for a pipe, a device or a folder, without waiting for it.
    """

    def without_waiting(name: str, flags: int) -> int:
        return os.open(name, flags | os.O_NONBLOCK)

    file = open(path, mode, buffering=0, opener=without_waiting)  # noqa: SIM115 - for the caller to close
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(
            errno.EINVAL,
            "not a regular file; for a pipe or a device, use the functions that take streams",
            str(path),
        )
    return file


@contextlib.contextmanager
def replacing(
    path: PathLike, *, mode: int = 0o666, exclusive: bool = False, follow: bool = True
) -> Iterator[BinaryIO]:
    """Yield a new binary file that replaces `path` when the block ends, and is removed when the block fails.

    The data is on disk before the name is, and the name is on disk before this returns (fsync of the
    file, rename, fsync of the folder), so after a power cut `path` is the old file or the new one.
    `mode` is subject to the umask. A symbolic link is followed: its target is replaced and the link
    stays; without `follow` the link itself is replaced. With `exclusive`, an existing `path` is left as it was
    and `FileExistsError` is raised.
    """
    target = os.fspath(os.path.realpath(path) if follow else path)
    if os.path.exists(target) and not os.path.islink(target) and not os.path.isfile(target):
        what = errno.EISDIR if os.path.isdir(target) else errno.EINVAL
        raise OSError(what, "not a regular file; only a regular file is replaced", target)
    if exclusive and os.path.exists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)
    folder, name = os.path.split(os.fsdecode(target))
    temporary = os.path.join(folder, f".{short_name(name)}.{os.urandom(6).hex()}.tmp")
    process = os.getpid()
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
        # Also when creating it failed: a signal can arrive after the file is made and before `with` has it. A
        # child that was forked within the block leaves it to its parent.
        if os.getpid() == process:
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
    """Return the first 200 bytes of a file's name, so that a suffix still fits into the 255 bytes of a name."""
    return os.fsencode(name)[:200].decode(errors="ignore")


def write(
    path: PathLike, data: bytes, *, mode: int = 0o666, exclusive: bool = False, follow: bool = True
) -> None:
    """Write `data` to the file `path`, whole or not at all. The arguments are those of `replacing`."""
    with replacing(path, mode=mode, exclusive=exclusive, follow=follow) as file:
        write_all(file, data)


def sync_folder(folder: PathLike) -> None:
    """Flush the names of the files in `folder` to disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
