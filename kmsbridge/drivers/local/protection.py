"""Encrypts the key material of a key file under a passphrase."""

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
    """Return the parameters of a new protection by `passphrase`. Takes as long as one guess of it."""
    salt = os.urandom(SALT_BYTES)
    return Protection(salt, cost, chunked.encrypt(_derive(passphrase, salt, cost), _CHECK_CONTEXT, b""))


def new_material(sealing_key: Secret | None, name: str, key_id: str, version: str) -> Secret:
    """Return new random material as it is stored: encrypted unless `sealing_key` is None."""
    material = os.urandom(MATERIAL_BYTES)
    if sealing_key is None:
        return Secret(material)
    return Secret(chunked.encrypt(sealing_key.reveal(), _material_context(name, key_id, version), material))


def open_material(key: StoredKey, version: str, sealing_key: Secret | None) -> bytes:
    """Return the 32 bytes of a version. Raises `AuthenticationError` where the stored material was changed."""
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
    """Derives the sealing key of a key file from the passphrase, and keeps it until salt or cost change."""

    def __init__(self, path: str, passphrase: Secret | None) -> None:
        if passphrase is not None and not passphrase.reveal():
            raise ConfigError(
                f"the passphrase for the key file {path} is empty",
                remedy="give a passphrase, or remove the option",
            )
        self._path = path
        self._passphrase = passphrase
        self._known: tuple[Protection, Secret] | None = None
        self._closed = False
        # Held while Argon2id runs, which needs 64 MiB: 64 threads at once would need 4 GiB. Reentrant, because
        # a signal handler on the thread that holds it may need the key as well.
        self._lock = threading.RLock()
        forks.watch(self)

    def check(self, protection: Protection | None) -> None:
        """Raise `ConfigError` where the file is protected and no passphrase is given, or the reverse."""
        if self._closed:
            raise ClosedError(f"the key file {self._path} is closed", remedy="open it again")
        if protection is not None and self._passphrase is None:
            raise ConfigError(
                f"the key file {self._path} is protected by a passphrase, but none is given",
                remedy='set the option passphrase of this key, for example to "env:KEY_PASSPHRASE"',
            )
        if protection is None and self._passphrase is not None:
            raise ConfigError(
                f"a passphrase is given, but the key file {self._path} is not protected by one",
                remedy="remove the option passphrase, or use the key file that it belongs to",
            )

    def sealing_key(self, protection: Protection | None, *, timeout: float) -> Secret | None:
        """Return the key that the file's material is encrypted under; None where the file is not protected.

        Raises `LocalKeyError`: UNAUTHENTICATED for a wrong passphrase, TIMEOUT after waiting `timeout` seconds
        for another thread's derivation. This thread's own derivation is not interrupted.
        """
        self.check(protection)
        if protection is None:
            return None
        known = self._known
        if known is not None and known[0] == protection:
            return known[1]
        if not self._lock.acquire(timeout=max(timeout, 0)):
            raise LocalKeyError(
                ErrorKind.TIMEOUT,
                f"the passphrase of the key file {self._path} could not be checked in time",
                "try again; the first call after opening the key takes longest",
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
            if self._closed:  # by a signal handler in the meantime
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
                f"the passphrase for the key file {self._path} is wrong",
                "check the option passphrase, also for a space or a newline at its end",
            ) from error
        return key

    def close(self) -> None:
        """Forget the passphrase and the key derived from it."""
        self._closed = True
        self._known = None
        # A running derivation stores its result before it releases the lock.
        with self._lock:
            self._passphrase = self._known = None

    def after_fork(self) -> None:
        """Start with a new lock and without a derived key in the child."""
        self._lock = threading.RLock()
        self._known = None
