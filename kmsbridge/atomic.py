"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

PathLike = str | os.PathLike[str]


@contextlib.contextmanager
def replacing(path: PathLike, *, mode: int = 0o666, exclusive: bool = False) -> Iterator[BinaryIO]:
    """A new binary file that takes `path`'s place when the block ends, and vanishes when it fails.

    The data is on disk before the name is, and the name is on disk before this returns (fsync of the
    file, rename, fsync of the folder), so after a power cut `path` is the old file or the new one.
    `mode` is subject to the umask. A symbolic link is followed: its target is replaced, the link
    stays. With `exclusive`, a `path` that exists is a `FileExistsError` and is left as it was.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not stat.S_ISREG(target.stat().st_mode):
        raise IsADirectoryError(f"{target} is not a regular file")
    if exclusive and target.exists():
        raise FileExistsError(f"{target} exists")
    temporary = target.with_name(f".{target.name[:200]}.{secrets.token_hex(6)}.tmp")
    descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "w+b", buffering=0) as file:
            yield file
            os.fsync(file.fileno())
        if exclusive:
            os.link(temporary, target)  # unlike rename, fails where the name exists
            os.unlink(temporary)
        else:
            os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    sync_folder(target.parent)


def write(path: PathLike, data: bytes, *, mode: int = 0o666, exclusive: bool = False) -> None:
    """Put `data` under `path`, as `replacing` does."""
    with replacing(path, mode=mode, exclusive=exclusive) as file:
        view = memoryview(data)
        while view:
            view = view[file.write(view) :]


def sync_folder(folder: PathLike) -> None:
    """Put the names in `folder` on disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
