"""A key file: reads its keys again whenever the file changes, and makes every change to it."""

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
"""The resolution of the coarsest file system's clock: a file changed within this time is read again every time."""

Edit = Callable[[Document, Secret | None], Document]


class _Snapshot(NamedTuple):
    document: Document
    stamp: files.Stamp
    settled: bool


class KeyFile:
    """One key file. Threads and processes may share the file; threads may share this object.

    A method that changes the file waits at most `timeout` seconds for other processes that change it. Every method
    may raise `ConfigError` for a file that cannot be used, `LocalKeyError`, `ClosedError` and `OSError`.
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
        """Create a file with one key, which only this user can read. A passphrase, if given, protects it.

        Raises `ConfigError` where `path` exists, and leaves it as it is, or where its folder is not suitable.
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
        """Return the content of the file, which is read again only when it has changed."""
        self._check_open()
        with discreet():
            snapshot = self._snapshot
            if snapshot is None or not snapshot.settled or files.stamp(os.stat(self.path)) != snapshot.stamp:
                self._snapshot = snapshot = self._read()
            return snapshot.document

    def names(self) -> list[str]:
        """Return the names of the keys, sorted."""
        return sorted(self.document().keys)

    def describe(self, name: str) -> StoredKey:
        """Return the key `name`, with its material as `Secret` objects."""
        return find_key(self.document(), name, self.path)

    def material(self, document: Document, key: StoredKey, version: str, *, timeout: float) -> Secret:
        """Return the 32 bytes of one version of `key`, a key of `document`, decrypted."""
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
        """Add a key. Raises `ConfigError` where the file has a key of that name."""
        _check_name(name)
        self._change(_with_new_key(name, self.path), timeout)

    def rotate(self, name: str, *, expected_id: str = "", timeout: float = TIMEOUT) -> str:
        """Add a version to the key, which wraps from now on, and return its name. Older versions still unwrap.

        Raises `LocalKeyError` (KEY_NOT_FOUND) where the key has another id than `expected_id`, if one is given.
        """

        def edit(document: Document, sealing_key: Secret | None) -> Document:
            key = find_key(document, name, self.path, expected_id)
            current = str(max(map(int, key.versions)) + 1)
            versions = {**key.versions, current: _new_version(sealing_key, name, key.id, current)}
            return _with(document, key._replace(current=current, versions=versions))

        return self._change(edit, timeout).keys[name].current

    def set_state(self, name: str, state: KeyState, *, timeout: float = TIMEOUT) -> None:
        """Enable or disable the key. A disabled key neither wraps nor unwraps."""
        if state not in (KeyState.ENABLED, KeyState.DISABLED):
            raise ConfigError(
                f"a local key cannot have the state {state.value}",
                remedy="enable it, disable it or remove it",
            )
        self._change(
            lambda document, _: _with(document, find_key(document, name, self.path)._replace(state=state)),
            timeout,
        )

    def remove_key(self, name: str, *, timeout: float = TIMEOUT) -> None:
        """Remove the key with all its versions.

        All that only this key wrapped is lost unless there is a copy of the file: a new key of the same name does
        not unwrap it.
        """

        def edit(document: Document, _: Secret | None) -> Document:
            find_key(document, name, self.path)
            return document._replace(keys={n: key for n, key in document.keys.items() if n != name})

        self._change(edit, timeout)

    def close(self) -> None:
        """Forget the keys and the passphrase. May be repeated."""
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
        self._unlocker.check(document.protection)
        changed = max(status.st_mtime_ns, status.st_ctime_ns)
        return _Snapshot(document, files.stamp(status), settled=time.time_ns() - changed > _SETTLED_NS)

    def _change(self, edit: Edit, timeout: float) -> Document:
        self._check_open()
        deadline = time.monotonic() + timeout
        with discreet():
            # Argon2id runs before the lock is taken, so that other processes do not wait for it.
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
    """Clear the local variables of the frames below in every error that leaves the block: they hold key material."""
    try:
        yield
    except BaseException as error:
        forget_locals(error)
        raise


def _absolute(path: str | os.PathLike[str]) -> str:
    text = os.fspath(path)
    if not text or "\0" in text:
        raise ConfigError(
            "the path of a key file is empty or has a NUL character",
            remedy="correct the path in local:PATH#NAME",
        )
    # Not normalised: "a/../b" is not "b" where a is a symbolic link.
    return os.path.join(os.getcwd(), text)


def _check_name(name: str) -> None:
    if not is_name(name):
        raise ConfigError(
            "the name is not valid for a local key",
            remedy="use 1 to 128 of A-Z a-z 0-9 . _ - beginning with a letter or digit, without '..'",
        )


def _check_place(path: str) -> None:
    if os.path.lexists(path):
        raise _exists(path)
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        raise ConfigError(
            f"the folder {folder} for the key file does not exist", remedy="make it with mode 0700"
        )
    files.check_folder(path)


def _exists(path: str) -> ConfigError:
    return ConfigError(
        f"{path} exists, and a key file is never overwritten",
        remedy="choose another path, or add a key to the existing file",
    )


def find_key(document: Document, name: str, path: str, expected_id: str = "") -> StoredKey:
    """Return the key `name` of the key file at `path`.

    Raises `LocalKeyError` (KEY_NOT_FOUND) where there is none, or where it has another id than `expected_id`.
    """
    key = document.keys.get(name)
    if key is not None and expected_id in ("", key.id):
        return key
    raise LocalKeyError(
        ErrorKind.KEY_NOT_FOUND,
        f"the key {name[:128]!r} is not in {path}"
        if key is None
        else f"{path} has another key named {name} now",
        f"restore {path} from a backup, or use a key that is in it",
    )


def _write(path: str, document: Document, *, exclusive: bool = False) -> None:
    data = render(document)
    parse(data, path)  # never write a file that could not be read again
    atomic.write(path, data, mode=0o600, exclusive=exclusive)


def _with(document: Document, key: StoredKey) -> Document:
    return document._replace(keys={**document.keys, key.name: key})


def _with_new_key(name: str, path: str) -> Edit:
    def edit(document: Document, sealing_key: Secret | None) -> Document:
        if name in document.keys:
            raise ConfigError(f"the key file {path} already has a key {name}", remedy="choose another name")
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
    """Remove the temporary files that a killed process left beside `path`. The lock must be held."""
    folder, name = os.path.split(path)
    leftover = re.compile(rf"\.{re.escape(atomic.short_name(name))}\.[0-9a-f]{{12}}\.tmp")
    for entry in os.listdir(folder):
        if leftover.fullmatch(entry):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(folder, entry))
