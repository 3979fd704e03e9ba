"""The `sqlite-kms` driver: keys in a SQLite database, `sqlite-kms:PATH#NAME`."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from kmsbridge.driver import (
    Capability,
    DriverError,
    EncryptionContext,
    ErrorKind,
    KeyDescription,
    KeyDriver,
    KeyState,
    KeyURI,
    Operation,
    Options,
    WrappedKey,
)
from kmsbridge.errors import ConfigError

NONCE = 12
NAME = re.compile(r"[a-z0-9-]{1,64}")
TABLES = """
    CREATE TABLE IF NOT EXISTS keys (name TEXT PRIMARY KEY, state TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS versions (name TEXT, version INTEGER, material BLOB, PRIMARY KEY (name, version));
"""


KINDS = {
    InvalidTag: ErrorKind.NOT_AUTHENTIC,
    sqlite3.Error: ErrorKind.UNAVAILABLE,
}


@contextmanager
def database(path: str, timeout: float) -> Iterator[sqlite3.Connection]:
    """The open database; changes are kept if nothing is raised."""
    connection = sqlite3.connect(path, timeout=timeout)
    try:
        with connection:
            yield connection
    finally:
        connection.close()


def add_version(path: str, name: str, timeout: float = 10) -> None:
    """Make the key, or a new version of it."""
    with database(path, timeout) as connection:
        connection.executescript(TABLES)
        connection.execute("INSERT OR IGNORE INTO keys VALUES (?, 'enabled')", (name,))
        connection.execute(
            "INSERT INTO versions SELECT ?, COALESCE(MAX(version), 0) + 1, ? FROM versions WHERE name = ?",
            (name, AESGCM.generate_key(256), name),
        )


class SqliteDriver(KeyDriver):
    """Binds the context as AES-GCM's associated data."""

    scheme: ClassVar[str] = "sqlite-kms"
    capabilities: frozenset[Capability] = frozenset(
        {Capability.BINDS_CONTEXT, Capability.REPORTS_VERSION, Capability.ROTATE}
    )
    max_plaintext: int = 1024
    reads_version: bool = True

    def __init__(self, path: str, name: str) -> None:
        self._path, self._name = path, name
        self._key_id = f"{self.scheme}:{name}"

    @classmethod
    def open(cls, uri: KeyURI, options: Options) -> Self:
        uri.parameters()
        if not NAME.fullmatch(uri.fragment):
            raise ConfigError(
                "no such key name can be", remedy="write sqlite-kms:PATH#NAME, NAME of a-z 0-9 -"
            )
        return cls(os.path.join(options.folder, uri.path), uri.fragment)

    def resolve(self, *, timeout: float) -> str:
        return self._key_id

    def wrap(self, plaintext: bytes, context: EncryptionContext, *, timeout: float) -> WrappedKey:
        version, material = self._usable(None, timeout)
        nonce = os.urandom(NONCE)
        sealed = AESGCM(material).encrypt(nonce, plaintext, context.canonical())
        return WrappedKey(self._key_id, str(version), nonce + sealed)

    def unwrap(self, wrapped: WrappedKey, context: EncryptionContext, *, timeout: float) -> bytes:
        _, material = self._usable(wrapped.version, timeout)
        nonce, sealed = wrapped.ciphertext[:NONCE], wrapped.ciphertext[NONCE:]
        if len(nonce) < NONCE:
            raise InvalidTag
        return AESGCM(material).decrypt(nonce, sealed, context.canonical())

    def describe(self, *, timeout: float) -> KeyDescription:
        state, version, _ = self._find(None, timeout)
        return KeyDescription(self._key_id, KeyState(state), str(version))

    def rotate(self, *, timeout: float) -> None:
        self._find(None, timeout)
        add_version(self._path, self._name, timeout)

    def classify(self, error: BaseException, operation: Operation) -> ErrorKind:
        return next(
            (kind for cls, kind in KINDS.items() if isinstance(error, cls)), ErrorKind.INVALID_REQUEST
        )

    def close(self) -> None:
        """Each call opens the database and closes it."""

    def _usable(self, version: str | None, timeout: float) -> tuple[int, bytes]:
        state, number, material = self._find(version, timeout)
        if state != "enabled":
            raise DriverError(ErrorKind.KEY_DISABLED)
        return number, material

    def _find(self, version: str | None, timeout: float) -> tuple[str, int, bytes]:
        query = "SELECT state, version, material FROM keys JOIN versions USING (name) WHERE name = ?"
        with database(self._path, timeout) as connection:
            rows = connection.execute(f"{query} ORDER BY version DESC", (self._name,)).fetchall()
        found = [row for row in rows if version in (None, str(row[1]))]
        if not found:
            raise DriverError(ErrorKind.KEY_NOT_FOUND)
        return found[0]  # type: ignore[no-any-return]
