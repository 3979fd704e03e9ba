"""The passphrase of a key file, and how key material is sealed under it."""

from __future__ import annotations

import os
import threading
from typing import Final

from kmsbridge import forks
from kmsbridge.driver import ErrorKind, Secret
from kmsbridge.drivers.local.document import MATERIAL_BYTES, SALT_BYTES, Cost, Protection, StoredKey
from kmsbridge.drivers.local.errors import LocalKeyError
from kmsbridge.drivers.local.passphrase import passphrase_key
from kmsbridge.errors import AuthenticationError, ClosedError, ConfigError
from kmsbridge.message import chunked

_CHECK_CONTEXT: Final = b"kmsbridge-local/v1 check"
_MATERIAL_CONTEXT: Final = b"kmsbridge-local/v1 material"


def protect(passphrase: Secret, cost: Cost) -> Protection:
    """A new protection under `passphrase`; takes as long as one guess of it."""
    salt = os.urandom(SALT_BYTES)
    return Protection(salt, cost, chunked.encrypt(_derive(passphrase, salt, cost), _CHECK_CONTEXT, b""))


def new_material(sealing_key: Secret | None, name: str, key_id: str, version: str) -> Secret:
    """Fresh material in the form that the file keeps: sealed, unless `sealing_key` is None."""
    material = os.urandom(MATERIAL_BYTES)
    if sealing_key is None:
        return Secret(material)
    return Secret(chunked.encrypt(sealing_key.reveal(), _material_context(name, key_id, version), material))


def open_material(key: StoredKey, version: str, sealing_key: Secret | None) -> bytes:
    """The 32 bytes of that version; raises `AuthenticationError` where the file was changed."""
    stored = key.versions[version].material.reveal()
    if sealing_key is None:
        return stored
    return chunked.decrypt(sealing_key.reveal(), _material_context(key.name, key.id, version), stored)


def _material_context(name: str, key_id: str, version: str) -> bytes:
    return b"\0".join((_MATERIAL_CONTEXT, name.encode(), key_id.encode(), version.encode()))


def _derive(passphrase: Secret, salt: bytes, cost: Cost) -> bytes:
    return passphrase_key(
        passphrase.reveal(), salt, iterations=cost.iterations, memory_kib=cost.memory_kib, lanes=cost.lanes
    )


class Unlocker:
    """Makes a file's sealing key of the passphrase, once for each salt and cost, and remembers the last."""

    def __init__(self, path: str, passphrase: Secret | None) -> None:
        if passphrase is not None and not passphrase.reveal():
            raise ConfigError(
                f"the passphrase for the key file {path} is empty",
                remedy="give a passphrase, or leave the option out",
            )
        self._path = path
        self._passphrase = passphrase
        self._known: tuple[Protection, Secret] | None = None
        self._closed = False
        # Held while Argon2id runs: 64 threads that each took its 64 MiB would take 4 GiB. Re-entrant, because
        # a signal handler on the thread that holds it may need the key as well.
        self._lock = threading.RLock()
        forks.watch(self)

    def expect(self, protection: Protection | None) -> None:
        """Raise `ConfigError` where the file is protected and no passphrase is given, or the reverse."""
        if self._closed:
            raise ClosedError(f"the key file {self._path} is closed", remedy="open it again")
        if protection is not None and self._passphrase is None:
            raise ConfigError(
                f"the key file {self._path} is protected by a passphrase, and none is given",
                remedy='set the option passphrase of this key, for example to "env:KEY_PASSPHRASE"',
            )
        if protection is None and self._passphrase is not None:
            raise ConfigError(
                f"a passphrase is given, and the key file {self._path} is not protected by one",
                remedy="remove the option passphrase, or use the file that it belongs to",
            )

    def sealing_key(self, protection: Protection | None, *, timeout: float) -> Secret | None:
        """The key that material is sealed under; None where the file is not protected.

        Raises a `LocalKeyError`: UNAUTHENTICATED for a wrong passphrase, TIMEOUT after `timeout`
        seconds of waiting for another thread's derivation (its own is not interrupted).
        """
        self.expect(protection)
        if protection is None:
            return None
        known = self._known
        if known is not None and known[0] == protection:
            return known[1]
        if not self._lock.acquire(timeout=max(timeout, 0)):
            raise LocalKeyError(
                ErrorKind.TIMEOUT,
                f"the passphrase of the key file {self._path} was not checked in time",
                "repeat the call; the first one after opening takes longest",
            )
        try:
            return self._unlock(protection)
        finally:
            self._lock.release()

    def _unlock(self, protection: Protection) -> Secret:
        if self._closed or self._passphrase is None:
            raise ClosedError(f"the key file {self._path} is closed", remedy="open it again")
        known = self._known
        if known is None or known[0] != protection:
            known = (protection, self._derived(self._passphrase, protection))
            if self._closed:  # by a signal handler, meanwhile
                raise ClosedError(f"the key file {self._path} is closed", remedy="open it again")
            self._known = known
        return known[1]

    def _derived(self, passphrase: Secret, protection: Protection) -> Secret:
        key = Secret(_derive(passphrase, protection.salt, protection.cost))
        try:
            chunked.decrypt(key.reveal(), _CHECK_CONTEXT, protection.check)
        except AuthenticationError as error:
            raise LocalKeyError(
                ErrorKind.UNAUTHENTICATED,
                f"the passphrase does not open the key file {self._path}",
                "check the option passphrase; a space or a newline at its end counts",
            ) from error
        return key

    def close(self) -> None:
        """Forget the passphrase and the key made of it."""
        self._closed = True
        self._known = None
        # A derivation under way stores its result before it lets go of the lock.
        with self._lock:
            self._passphrase = self._known = None

    def after_fork(self) -> None:
        """In the child: a lock that no thread holds, and no derived key."""
        self._lock = threading.RLock()
        self._known = None
