"""A private file on disk: read again whenever it changes, and changed by one process at a time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, NamedTuple

from kmsbridge import atomic
from kmsbridge.drivers.hpke.document import Document, Pair, parse, render
from kmsbridge.drivers.hpke.errors import file_error
from kmsbridge.drivers.local import files
from kmsbridge.errors import ConfigError

_SETTLED_NS: Final = 2_000_000_000
"""The resolution of the coarsest file system's clock: a file changed within this time is read again every time."""
_TIMEOUT: Final = 10.0


class _Snapshot(NamedTuple):
    document: Document
    stamp: files.Stamp
    settled: bool


class PrivateFile:
    """One private file, which threads and processes may share. Threads may share this object."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._snapshot: _Snapshot | None = None

    def document(self) -> Document:
        """Return the content of the file, which is read again only when it has changed.

        Raises `ConfigError` for a file that cannot be used, and `HpkeError` where it cannot be read.
        """
        try:
            snapshot = self._snapshot
            if snapshot is None or not snapshot.settled or files.stamp(os.stat(self.path)) != snapshot.stamp:
                self._snapshot = snapshot = self._read()
            return snapshot.document
        except OSError as error:
            if error.errno is None:
                raise  # not from the file: a signal handler raised it
            raise file_error(error, self.path) from error

    def last_known(self) -> Document | None:
        """Return what the file held when it was last read; None where it was not."""
        return self._snapshot.document if self._snapshot else None

    def _read(self) -> _Snapshot:
        data, status = files.read(self.path)
        changed = max(status.st_mtime_ns, status.st_ctime_ns)
        settled = time.time_ns() - changed > _SETTLED_NS
        return _Snapshot(parse(data, self.path), files.stamp(status), settled)


def create(path: str, pair: Pair) -> None:
    """Write a new private file with one pair, for this user alone (mode 0600).

    Raises `ConfigError` where `path` exists, and leaves it as it is, or where its folder is not suitable.
    """
    files.check_folder(path)
    try:
        _write(path, Document({pair.public_key.version: pair}), exclusive=True)
    except FileExistsError as error:
        raise exists(path) from error


def add(path: str, make: Callable[[Document], Pair]) -> None:
    """Add the pair that `make` returns for the file's content to it; the pairs that it has stay as they are.

    Waits at most 10 s for another process that changes the file.
    """
    target = os.path.realpath(path)
    with files.locked(target, timeout=_TIMEOUT):
        data, _ = files.read(path)
        before = parse(data, path)
        pair = make(before)
        if pair.public_key.name != before.name:
            raise ConfigError(
                f"the private file {path} is that of hpke:{before.name}", remedy="name a file of this key"
            )
        _write(target, Document({**before.pairs, pair.public_key.version: pair}), exclusive=False)


def exists(path: str) -> ConfigError:
    """Return the error for a private file that would be overwritten."""
    return ConfigError(
        f"{path} exists, and a private file is never overwritten",
        remedy="choose another path, or add a pair to the file with --rotate",
    )


def now() -> datetime:
    """Return the present time in whole seconds, as private files have it."""
    return datetime.now(UTC).replace(microsecond=0)


def _write(path: str, document: Document, *, exclusive: bool) -> None:
    data = render(document)
    parse(data, path)  # never write a file that could not be read again
    atomic.write(path, data, mode=0o600, exclusive=exclusive)
