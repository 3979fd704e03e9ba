"""Key files on disk: refused where other users could have changed them, and changed by one process at a time."""

from __future__ import annotations

import contextlib
import fcntl
import grp
import os
import pwd
import stat
import time
from collections.abc import Iterator
from typing import Final

from kmsbridge.clock import jitter
from kmsbridge.driver import ErrorKind
from kmsbridge.drivers.local.document import MAX_BYTES
from kmsbridge.drivers.local.errors import LocalKeyError
from kmsbridge.errors import ConfigError

Stamp = tuple[int, ...]

_LONGEST_PAUSE: Final = 0.02


def stamp(status: os.stat_result) -> Stamp:
    """Return values that differ between two states of a file, unless both were written within one clock tick."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def read(path: str) -> tuple[bytes, os.stat_result]:
    """Return the file's bytes, and its status when they were read.

    Raises `ConfigError` unless it is a regular file of this user or root that nobody else can read, write or
    replace, of at most 8 MiB. Raises `OSError` where it cannot be read.
    """
    check_folder(path)
    # O_NONBLOCK: a FIFO must be refused, not waited for.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        status = os.fstat(descriptor)
        _check_file(path, status)
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            data = file.read(min(status.st_size, MAX_BYTES) + 1)
    finally:
        os.close(descriptor)
    if len(data) > MAX_BYTES:
        raise ConfigError(f"the key file {path} is larger than {MAX_BYTES} bytes", remedy="check the path")
    return data, status


def _check_file(path: str, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError(
            f"the key file {path} is not a regular file", remedy="use the path of a regular file"
        )
    if status.st_uid not in (os.geteuid(), 0):
        raise ConfigError(
            f"the key file {path} belongs to another user", remedy=f"chown {os.geteuid()} {path}"
        )
    if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(
            f"the key file {path} is open to other users (mode {stat.S_IMODE(status.st_mode):04o})",
            remedy=f"chmod 600 {path}",
        )


def check_folder(path: str) -> None:
    """Raise `ConfigError` where other users can replace files in the folder of `path`, or of its target.

    The folder must belong to this user or to root.
    """
    for folder in {os.path.dirname(path), os.path.dirname(os.path.realpath(path))}:
        status = os.stat(folder)
        if not stat.S_ISDIR(status.st_mode):
            continue
        if status.st_uid not in (os.geteuid(), 0):
            raise ConfigError(
                f"the folder {folder} of the key file belongs to another user",
                remedy=f"chown {os.geteuid()} {folder}, or move the key file to a folder of your own",
            )
        if status.st_mode & stat.S_ISVTX:
            continue
        if status.st_mode & stat.S_IWOTH:
            raise ConfigError(
                f"everyone may replace files in {folder}, the folder of the key file",
                remedy=f"chmod o-w {folder}",
            )
        if status.st_mode & stat.S_IWGRP and not _is_private_group(status):
            raise ConfigError(
                f"a group may replace files in {folder}, the folder of the key file",
                remedy=f"chmod g-w {folder}",
            )


def _is_private_group(status: os.stat_result) -> bool:
    """Return whether the owner is the only member of the group, as on systems where each user has a group."""
    try:
        owner, group = pwd.getpwuid(status.st_uid), grp.getgrgid(status.st_gid)
    except KeyError:
        return False
    own = group.gr_name == owner.pw_name and owner.pw_gid == status.st_gid
    return own and not set(group.gr_mem) - {owner.pw_name}


@contextlib.contextmanager
def locked(path: str, *, timeout: float) -> Iterator[None]:
    """Hold the lock of the key file `path` within the block, against other processes and threads.

    `path` must not contain symbolic links. The lock is the file `path` + ".lock", which stays. Raises
    `LocalKeyError` (TIMEOUT) after `timeout` seconds.
    """
    descriptor = _acquire(f"{path}.lock", time.monotonic() + timeout)
    try:
        yield
    finally:
        try:
            # A child forked meanwhile shares the lock: closing this descriptor alone would not release it.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        finally:
            os.close(descriptor)


def _acquire(path: str, deadline: float) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            _wait(descriptor, path, deadline)
            if _is_current(path, descriptor):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _wait(descriptor: int, path: str, deadline: float) -> None:
    pause = 0.001
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() + pause > deadline:
                break
        time.sleep(jitter(0, pause))
        pause = min(2 * pause, _LONGEST_PAUSE)
    raise LocalKeyError(
        ErrorKind.TIMEOUT,
        f"another process held the lock {path} for too long",
        f"try again; 'fuser {path}' names the process",
    )


def _is_current(path: str, descriptor: int) -> bool:
    """Return whether `path` still names the locked file: if it was removed, others lock a new one."""
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(descriptor))
    except FileNotFoundError:
        return False
