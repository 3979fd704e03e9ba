"""The blind index of one kind of value."""

from __future__ import annotations

import hmac
import struct
import threading
from collections.abc import Callable, Sequence
from typing import Final

from kmsbridge import forks
from kmsbridge.blindindex.keys import LENGTH, index_keys
from kmsbridge.blindindex.normalizers import Normalizer, normalizer
from kmsbridge.errors import ConfigError, discreet
from kmsbridge.secret import Secret

FULL: Final = 128
"""Bits with which two different values have different indexes, for all that will ever be stored."""
LEAST: Final = 4

Keys = str | Sequence[Secret] | Callable[[], Sequence[Secret]]

_PREFIX: Final = b"kmsbridge/v1/index\0"
_U16: Final = struct.Struct(">H")
_LONGEST: Final = 0xFFFF


class BlindIndex:
    """Computes what is stored beside an encrypted value to look it up by: a keyed hash of the value.

    `label` names what is indexed, such as `users.phone`, and never changes: indexes of two labels cannot be
    compared. `keys` is the name of an index in the configuration, as `index_keys` takes it; or a list of keys, each
    a `SecretValue` of 32 bytes; or a function that returns such a list. What is stored is made with the first key, and
    a query is made with each. A name or a function is asked when a key is first needed, which may call a key service. `normalize` says what counts as the same value:
    `exact`, `casefold`, `digits`, `email`, `e164`, or a `Normalizer`. `bits` is the length of what is stored, 4 to
    128: with fewer than 128 different values may share it.

    Safe to share between threads, and to use in forked children. Raises `ConfigError` for what cannot be.
    """

    def __init__(
        self,
        label: str,
        *,
        keys: Keys,
        normalize: str | Normalizer = "exact",
        bits: int = FULL,
    ) -> None:
        if not LEAST <= bits <= FULL:
            raise ConfigError(f"bits is {bits}", remedy=f"give {LEAST} to {FULL}")
        if not label:
            raise ConfigError("the label of an index is empty", remedy="name what is indexed: users.phone")
        self.label, self.bits = label, bits
        self.normalizer = normalizer(normalize)
        self._label, self._normalizer = _field(label, "label"), _field(self.normalizer.id, "normalizer's id")
        self._keys = _LoadedKeys(keys)

    @property
    def size(self) -> int:
        """The bytes of what is stored: `BINARY(16)` for 128 bits."""
        return (self.bits + 7) // 8

    @property
    def supports_unique(self) -> bool:
        """True where a UNIQUE constraint on what is stored means that the values are unique: with 128 bits only."""
        return self.bits == FULL

    @discreet
    def of(self, value: str | None, *, tenant: str) -> bytes | None:
        """Return what is stored beside `value`: `size` bytes, by the first key. None for None.

        `tenant` is the owner of the value, empty where there is one for all: equal values of two tenants have
        different indexes. Raises `ValueError` for a value that the normalizer refuses, `TypeError` for what is no
        text, and what `load_keys` raises.
        """
        return None if value is None else self._hash(self._keys.get()[0], self._bound(value, tenant))

    @discreet
    def queries(self, value: str, *, tenant: str) -> list[bytes]:
        """Return what may be stored beside `value`, by each key: query for a row that has any of them.

        Raises what `of` raises, and `TypeError` for None: query for NULL itself.
        """
        bound = self._bound(value, tenant)
        return [self._hash(key, bound) for key in self._keys.get()]

    @discreet
    def normalize(self, value: str) -> str:
        """Return `value` in the form that is hashed: two values with the same one are found by each other.

        With fewer than 128 bits, compare what was decrypted with what was looked for by this. Raises `ValueError`
        for a value that the normalizer refuses, and `TypeError` for what is no text.
        """
        return self._form(value)

    @discreet
    def load_keys(self) -> None:
        """Load the keys now rather than with the first value: when a program starts, or by a thread of asyncio's.

        Raises what `index_keys` raises, or the function that was given.
        """
        self._keys.get()

    def __repr__(self) -> str:
        return f"BlindIndex({self.label!r}, normalize={self.normalizer.id!r}, bits={self.bits})"

    def _form(self, value: str) -> str:
        if not isinstance(value, str):
            raise TypeError(f"the value must be str, not {type(value).__name__}")
        return self.normalizer.function(value)

    def _bound(self, value: str, tenant: str) -> bytes:
        if not isinstance(tenant, str):
            raise TypeError(f"tenant must be str, not {type(tenant).__name__}: convert it first")
        form = _utf8(self._form(value), "value")
        return b"".join((_PREFIX, self._label, _field(tenant, "tenant"), self._normalizer, form))

    def _hash(self, key: Secret, bound: bytes) -> bytes:
        hashed = hmac.digest(key.reveal(), bound, "sha256")[: self.size]
        spare = 8 * self.size - self.bits
        return hashed if not spare else hashed[:-1] + bytes((hashed[-1] >> spare << spare,))


def _field(text: str, name: str) -> bytes:
    encoded = _utf8(text, name)
    if len(encoded) > _LONGEST:
        raise ConfigError(
            f"the {name} of an index is too long", remedy=f"use at most {_LONGEST} bytes of UTF-8"
        )
    return _U16.pack(len(encoded)) + encoded


def _utf8(text: str, name: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        # The error that Python makes holds the text itself.
        raise ValueError(f"the {name} has unpaired surrogates and cannot be written as UTF-8") from None


class _LoadedKeys:
    """The keys of an index, which are asked for once, when they are first needed."""

    def __init__(self, given: Keys) -> None:
        self._given = given
        self._keys = () if isinstance(given, str) or callable(given) else _checked(given)
        self.after_fork()
        forks.watch(self)

    def get(self) -> tuple[Secret, ...]:
        """Return the keys. Raise what `index_keys` raises, or the function that was given."""
        if not self._keys:
            with self._lock:
                self._keys = self._keys or _checked(self._ask())
        return self._keys

    def after_fork(self) -> None:
        """Another thread of the parent may have held the lock. The keys go on working in the child."""
        self._lock = threading.RLock()

    def _ask(self) -> Sequence[Secret]:
        if isinstance(self._given, str):
            return index_keys(self._given)
        return self._given() if callable(self._given) else self._given


def _checked(keys: Sequence[Secret]) -> tuple[Secret, ...]:
    keys = tuple(keys)
    if not all(isinstance(key, Secret) for key in keys):
        raise TypeError("the keys of an index must be SecretValue objects")
    if not keys or any(len(key.reveal()) != LENGTH for key in keys):
        raise ConfigError(
            f"an index needs keys of {LENGTH} bytes", remedy="make one with 'kmsbridge index new'"
        )
    return keys
