"""The `memory` driver: `memory:NAME`."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import ClassVar, Final, NamedTuple, Self

from kmsbridge.driver import (
    Capability,
    EncryptionContext,
    ErrorKind,
    KeyDescription,
    KeyDriver,
    KeyState,
    KeyURI,
    Operation,
    Options,
    PolicyRole,
    Secret,
    WrappedKey,
)
from kmsbridge.errors import AuthenticationError, ConfigError, discreet
from kmsbridge.message import chunked, cobblestone

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_CONTEXT: Final = b"kmsbridge-memory/v1\0"
_FORGED: Final = 80
"""The length in bytes of a forged wrapped key: about that of a wrapped data key."""


class _Key(NamedTuple):
    key_id: str
    secret: Secret


# The keys of this process, by name. A forked child has a copy, so it goes on with the keys of its parent.
_keys: Final[dict[str, _Key]] = {}


class MemoryDriver(KeyDriver):
    """A key in the memory of this process, which is drawn when it is first opened and is gone when the process ends.

    All drivers of one name in a process have the same key, and so have the children that it forks afterwards. Its id
    is `memory:NAME@` and 16 hex digits, drawn with it. A data key is wrapped with Cobblestone-256; the Cobblestone
    context is `"kmsbridge-memory/v1" 0x00` and the canonical encryption context.
    """

    scheme: ClassVar[str] = "memory"
    capabilities: frozenset[Capability] = frozenset({Capability.BINDS_CONTEXT})
    # The limit of AWS KMS: a payload that is accepted here must not be too large after a move to a service.
    max_plaintext: int = 4096
    may_wait: bool = False

    def __init__(self, key_id: str, secret: Secret) -> None:
        self._key_id, self._secret = key_id, secret

    @classmethod
    def open(cls, uri: KeyURI, options: Options) -> Self:  # noqa: ARG003 - it has none
        """Return a driver for the key of this name, which is drawn if there is none. Raises `ConfigError`."""
        if uri.query:
            raise ConfigError(
                f"a memory URI has no parameters, but this one has {', '.join(sorted(uri.query))}",
                remedy="write memory:NAME",
            )
        if uri.fragment or not _NAME.fullmatch(uri.path):
            raise ConfigError(
                "a memory URI is not memory:NAME",
                remedy="use a name of 1 to 128 of A-Z a-z 0-9 . _ - that begins with a letter or digit",
            )
        key = _keys.get(uri.path)
        if key is None:
            drawn = _Key(f"memory:{uri.path}@{os.urandom(8).hex()}", Secret(cobblestone.new_key()))
            key = _keys.setdefault(uri.path, drawn)  # another thread may have been first
        return cls(*key)

    def resolve(self, *, timeout: float) -> str:
        """Return `memory:NAME@` and the key's own id."""
        return self._key_id

    @discreet
    def wrap(self, plaintext: bytes, context: EncryptionContext, *, timeout: float) -> WrappedKey:
        """Encrypt `plaintext` under the key."""
        ciphertext = chunked.encrypt(self._secret.reveal(), _CONTEXT + context.canonical(), plaintext)
        return WrappedKey(self._key_id, "", ciphertext)

    @discreet
    def unwrap(self, wrapped: WrappedKey, context: EncryptionContext, *, timeout: float) -> bytes:
        """Decrypt `wrapped`. Raise `AuthenticationError`."""
        if wrapped.key_id != self._key_id:
            raise AuthenticationError
        return chunked.decrypt(self._secret.reveal(), _CONTEXT + context.canonical(), wrapped.ciphertext)

    def describe(self, *, timeout: float) -> KeyDescription:
        """Return that the key can be used."""
        return KeyDescription(self._key_id, KeyState.ENABLED, rotation="a new key in each run of the program")

    def policy(self, role: PolicyRole) -> str:
        """Raise `ConfigError`: the key is in the process that uses it, which has no roles."""
        raise ConfigError(
            f"there are no policies for {self._key_id}: the process that it is in may do everything with it",
            remedy="use a key of a key service to separate roles, as in docs/how-to/separate-roles.md",
        )

    def forgeries(self) -> Sequence[WrappedKey]:
        """Return random bytes."""
        return (WrappedKey(self._key_id, "", os.urandom(_FORGED)),)

    def classify(self, error: BaseException, operation: Operation) -> ErrorKind | None:
        """Return the kind of an error of the system, which draws the random bytes; None for any other."""
        return ErrorKind.UNAVAILABLE if isinstance(error, OSError) and error.errno is not None else None

    def close(self) -> None:
        """Do nothing: the key is for the whole run, and other ciphers of the process may use it."""

    def __repr__(self) -> str:
        return f"MemoryDriver({self._key_id!r})"
