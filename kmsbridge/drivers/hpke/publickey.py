"""Public keys: one line of text each, with the id of the key and the suite in it.

The line is `kmsbpk1_` and base64url, without padding, of: the length of the key's name (one byte), the name, which is
`NAME@ID`, the ids of KEM, KDF and AEAD (two bytes each), and the bytes of the public key.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import struct
from typing import Any, Final, NamedTuple

from kmsbridge.driver import EncryptionContext
from kmsbridge.drivers.hpke.suites import BY_IDS, Suite
from kmsbridge.errors import ConfigError

PREFIX: Final = "kmsbpk1_"
SCHEME: Final = "hpke"

_LABEL: Final = b"kmsbridge-hpke/v1\0"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_FULL_NAME: Final = re.compile(rf"({_NAME.pattern})@([0-9a-f]{{16}})")
_IDS: Final = 6
_LONGEST_LINE: Final = 4096


class PublicKey(NamedTuple):
    """One public key. `name` is `NAME@ID`, `data` the key's bytes and `key` the loaded key.

    `hash` is the SHA-256 of the suite and of the bytes, in hex.
    """

    name: str
    suite: Suite
    data: bytes
    key: Any
    hash: str
    bound: bytes
    """The start of `info`: the label, the suite and the id of the key."""

    @classmethod
    def of(cls, name: str, suite: Suite, data: bytes) -> PublicKey:
        """Return the key with these bytes. Raises `ConfigError` for one that is not canonical, or of low order."""
        try:
            key = suite.load_public(data) if len(data) == suite.public_bytes else None
        except ValueError:
            key = None
        if key is None:
            raise _refused(f"has no valid {suite.name} public key")
        digest = hashlib.sha256(suite.ids + data).hexdigest()
        return cls(name, suite, data, key, digest, _LABEL + _prefixed(suite.ids) + _prefixed(_id(name)))

    @classmethod
    def parse(cls, line: str) -> PublicKey:
        """Return the public key in a line of text; white space around it is ignored. Raises `ConfigError`."""
        line = line.strip(" \t\r\n")
        if not line.startswith(PREFIX) or len(line) > _LONGEST_LINE:
            raise _refused(f"does not begin with {PREFIX}, or is too long")
        text = line.removeprefix(PREFIX)
        try:
            data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            data = b""
        if not data or _encoded(data) != text:  # another spelling of the same bytes
            raise _refused("is cut short or was changed")
        end = 1 + data[0]
        full_name = data[1:end].decode("ascii", "replace")
        if not is_full_name(full_name):
            raise _refused("has no valid name")
        suite = BY_IDS.get(data[end : end + _IDS])
        if suite is None:
            raise _refused("is of a suite that this version does not know")
        return cls.of(full_name, suite, data[end + _IDS :])

    @property
    def key_id(self) -> str:
        """The key's id in messages."""
        return _id(self.name).decode()

    @property
    def version(self) -> str:
        """The version of the key: the first 32 hex digits of `hash`."""
        return self.hash[:32]

    def line(self) -> str:
        """Return the key as the line of text that `parse` takes."""
        name = self.name.encode()
        return PREFIX + _encoded(bytes([len(name)]) + name + self.suite.ids + self.data)

    def info(self, context: EncryptionContext) -> bytes:
        """Return HPKE's `info`, which binds a ciphertext to the suite, the key's id and `context`."""
        return self.bound + context.canonical()

    def wrap(self, plaintext: bytes, context: EncryptionContext) -> bytes:
        """Return HPKE's enc and ciphertext."""
        return self.suite.encrypt(plaintext, self.key, self.bound + context.canonical())

    def __repr__(self) -> str:
        return f"PublicKey({self.name!r}, {self.suite.name}, {self.version})"


def is_name(text: str) -> bool:
    """Return whether `text` is a valid NAME."""
    return bool(_NAME.fullmatch(text)) and ".." not in text


def is_full_name(text: str) -> bool:
    """Return whether `text` is a valid `NAME@ID`."""
    return bool(_FULL_NAME.fullmatch(text)) and ".." not in text


def _id(name: str) -> bytes:
    return f"{SCHEME}:{name}".encode()


def _prefixed(data: bytes) -> bytes:
    return struct.pack(">H", len(data)) + data


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _refused(why: str) -> ConfigError:
    return ConfigError(
        f"a public key {why}", remedy=f"copy the whole line that begins with {PREFIX}, as keygen printed it"
    )
