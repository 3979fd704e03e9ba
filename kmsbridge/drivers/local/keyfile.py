"""A key file: its keys, read anew whenever the file changes, and every change that can be made to it."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from kmsbridge import atomic
from kmsbridge.driver import ErrorKind, KeyState, Secret
from kmsbridge.drivers.local import files
from kmsbridge.drivers.local.document import Cost, Document, StoredKey, Version, is_name, parse, render
from kmsbridge.drivers.local.errors import LocalKeyError
from kmsbridge.drivers.local.protection import Unlocker, new_material, open_material, protect
from kmsbridge.errors import AuthenticationError, ClosedError, ConfigError, forget_locals

TIMEOUT: Final = 10.0
_SETTLED_NS: Final = 2_000_000_000
"""File systems stamp changes with clocks as coarse as this: a younger file is read again every time."""

Edit = Callable[[Document, Secret | None], Document]


class _Snapshot(NamedTuple):
    document: Document
    stamp: files.Stamp
    settled: bool


class KeyFile:
    """One key file. Threads and processes may share the file; threads may share this object.

    A method that changes the file waits at most `timeout` seconds for other processes that do. Each
    may raise `ConfigError` for a file that cannot be used, `LocalKeyError`, `ClosedError`, `OSError`.
    """

    def __init__(self, path: str | os.PathLike[str], passphrase: Secret | None = None) -> None:
        self.path = _absolute(path)
        self._unlocker = Unlocker(self.path, passphrase)
        self._snapshot: _Snapshot | None = None
        self._closed = False

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        name: str,
        passphrase: Secret | None = None,
        *,
        cost: Cost | None = None,
        timeout: float = TIMEOUT,
    ) -> KeyFile:
        """Make a file with one key, readable by this user alone; protected where there is a passphrase.

        Raises `ConfigError` where `path` exists (it is left as it is) or cannot hold a key file.
        """
        file = cls(path, passphrase)
        _check_name(name)
        with discreet():
            _check_place(file.path)
            protection = None if passphrase is None else protect(passphrase, cost or Cost())
            edit = _with_new_key(name, file.path)
            empty = Document(protection, {})
            with files.locked(os.path.realpath(file.path), timeout=timeout):
                document = edit(empty, file._unlocker.sealing_key(protection, timeout=timeout))
                try:
                    _write(file.path, document, exclusive=True)
                except FileExistsError as error:
                    raise _exists(file.path) from error
        return file

    def document(self) -> Document:
        """What the file says now. It is read again only when it has changed."""
        self._check_open()
        with discreet():
            snapshot = self._snapshot
            if snapshot is None or not snapshot.settled or files.stamp(os.stat(self.path)) != snapshot.stamp:
                self._snapshot = snapshot = self._read()
            return snapshot.document

    def names(self) -> list[str]:
        """The names of the keys, sorted."""
        return sorted(self.document().keys)

    def describe(self, name: str) -> StoredKey:
        """The key `name`; its material stays a `Secret`."""
        return find(self.document(), name, self.path)

    def material(self, document: Document, key: StoredKey, version: str, *, timeout: float) -> Secret:
        """The 32 bytes of one version of `key`, which is of `document`."""
        self._check_open()
        with discreet():
            sealing_key = self._unlocker.sealing_key(document.protection, timeout=timeout)
            try:
                return Secret(open_material(key, version, sealing_key))
            except AuthenticationError as error:
                raise ConfigError(
                    f"version {version} of the key {key.name} was changed in the key file {self.path}",
                    remedy="restore the file from a backup",
                ) from error

    def add_key(self, name: str, *, timeout: float = TIMEOUT) -> None:
        """Add a key; `ConfigError` where there is one of that name already."""
        _check_name(name)
        self._change(_with_new_key(name, self.path), timeout)

    def rotate(self, name: str, *, expected_id: str = "", timeout: float = TIMEOUT) -> str:
        """Add a version to the key, to wrap from now on, and return it. All older ones still unwrap.

        With `expected_id`, a key of that name which has another id is left alone.
        """

        def edit(document: Document, sealing_key: Secret | None) -> Document:
            key = find(document, name, self.path, expected_id)
            current = str(max(map(int, key.versions)) + 1)
            versions = {**key.versions, current: _new_version(sealing_key, name, key.id, current)}
            return _with(document, key._replace(current=current, versions=versions))

        return self._change(edit, timeout).keys[name].current

    def set_state(self, name: str, state: KeyState, *, timeout: float = TIMEOUT) -> None:
        """Enable or disable the key: a disabled one neither wraps nor unwraps."""
        if state not in (KeyState.ENABLED, KeyState.DISABLED):
            raise ConfigError(
                f"a local key cannot be {state.value}", remedy="enable it, disable it or remove it"
            )
        self._change(
            lambda document, _: _with(document, find(document, name, self.path)._replace(state=state)),
            timeout,
        )

    def remove_key(self, name: str, *, timeout: float = TIMEOUT) -> None:
        """Remove the key with all its versions.

        Nothing brings it back, not even a new key of that name: all that only this key wrapped is
        lost, unless there is a copy of the file from before.
        """

        def edit(document: Document, _: Secret | None) -> Document:
            find(document, name, self.path)
            return document._replace(keys={n: key for n, key in document.keys.items() if n != name})

        self._change(edit, timeout)

    def close(self) -> None:
        """Forget the keys and the passphrase; may be repeated."""
        self._closed = True
        self._snapshot = None
        self._unlocker.close()

    def __repr__(self) -> str:
        return f"KeyFile({self.path!r})"

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError(f"the key file {self.path} is closed", remedy="open it again")

    def _read(self) -> _Snapshot:
        data, status = files.read(self.path)
        document = parse(data, self.path)
        self._unlocker.expect(document.protection)
        changed = max(status.st_mtime_ns, status.st_ctime_ns)
        return _Snapshot(document, files.stamp(status), settled=time.time_ns() - changed > _SETTLED_NS)

    def _change(self, edit: Edit, timeout: float) -> Document:
        self._check_open()
        deadline = time.monotonic() + timeout
        with discreet():
            # Argon2id before the lock, so that other processes do not wait for it.
            self._unlocker.sealing_key(self._read().document.protection, timeout=timeout)
            target = os.path.realpath(self.path)
            with files.locked(target, timeout=deadline - time.monotonic()):
                before = self._read().document
                left = deadline - time.monotonic()
                after = edit(before, self._unlocker.sealing_key(before.protection, timeout=left))
                _remove_leftovers(target)
                _write(target, after)
        return after


@contextlib.contextmanager
def discreet() -> Iterator[None]:
    """Errors leave without the local variables of the frames below, where key material is."""
    try:
        yield
    except BaseException as error:
        forget_locals(error)
        raise


def _absolute(path: str | os.PathLike[str]) -> str:
    text = os.fspath(path)
    if not text or "\0" in text:
        raise ConfigError(
            "the path of a key file is empty or has a NUL character", remedy="write local:PATH#NAME"
        )
    # Not normalised: "a/../b" is another file than "b" where a is a symbolic link.
    return os.path.join(os.getcwd(), text)


def _check_name(name: str) -> None:
    if not is_name(name):
        raise ConfigError(
            "the name is not one that a local key can have",
            remedy="use 1 to 128 of A-Z a-z 0-9 . _ - beginning with a letter or digit, and no '..'",
        )


def _check_place(path: str) -> None:
    if os.path.lexists(path):
        raise _exists(path)
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        raise ConfigError(f"there is no folder {folder} for the key file", remedy="make it with mode 0700")
    files.check_folder(path)


def _exists(path: str) -> ConfigError:
    return ConfigError(
        f"{path} exists already, and a key file is never overwritten",
        remedy="choose another path, or add a key to that file",
    )


def find(document: Document, name: str, path: str, expected_id: str = "") -> StoredKey:
    """The key `name`, which must have `expected_id` where one is given; `LocalKeyError` without it."""
    key = document.keys.get(name)
    if key is not None and expected_id in ("", key.id):
        return key
    raise LocalKeyError(
        ErrorKind.KEY_NOT_FOUND,
        f"the key {name[:128]!r} is not in {path}" if key is None else f"{path} has another key {name} now",
        f"restore {path} from a backup, or use one of the keys there",
    )


def _write(path: str, document: Document, *, exclusive: bool = False) -> None:
    data = render(document)
    parse(data, path)  # nothing is written that could not be read back
    atomic.write(path, data, mode=0o600, exclusive=exclusive)


def _with(document: Document, key: StoredKey) -> Document:
    return document._replace(keys={**document.keys, key.name: key})


def _with_new_key(name: str, path: str) -> Edit:
    def edit(document: Document, sealing_key: Secret | None) -> Document:
        if name in document.keys:
            raise ConfigError(f"the key file {path} has a key {name} already", remedy="choose another name")
        key_id = os.urandom(8).hex()
        version = _new_version(sealing_key, name, key_id, "1")
        return _with(
            document, StoredKey(name, key_id, version.created, KeyState.ENABLED, "1", {"1": version})
        )

    return edit


def _new_version(sealing_key: Secret | None, name: str, key_id: str, version: str) -> Version:
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return Version(now, new_material(sealing_key, name, key_id, version))


def _remove_leftovers(path: str) -> None:
    """Remove what a killed writer left half written beside `path`. Call with the lock held."""
    folder, name = os.path.split(path)
    leftover = re.compile(rf"\.{re.escape(atomic.short_name(name))}\.[0-9a-f]{{12}}\.tmp")
    for entry in os.listdir(folder):
        if leftover.fullmatch(entry):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(folder, entry))
