"""The encryption context: pairs of text that a message and its wrapped keys are bound to."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Final

from kmsbridge.errors import ConfigError, LimitExceeded

MAX_PAIRS: Final = 64
MAX_BYTES: Final = 4096
RESERVED_PREFIX: Final = "kmsbridge"

_U16 = struct.Struct(">H")


class EncryptionContext(Mapping[str, str]):
    """An immutable, checked encryption context.

    Names and values are non-empty text that can be encoded as UTF-8; there are at most 64 pairs, of 4096 bytes
    in canonical form. `EncryptionContext.of` takes the user's pairs; `with_reserved` adds pairs
    that only this library may add and that do not count towards the limits.
    """

    __slots__ = ("_canonical", "_pairs")

    def __init__(self, pairs: Mapping[str, str], canonical: bytes) -> None:
        self._pairs = pairs
        self._canonical = canonical

    @classmethod
    def of(cls, pairs: Mapping[str, str] | None) -> EncryptionContext:
        """Check the user's pairs and return them as a context; None is the empty context.

        Raises `TypeError` for anything but a mapping of text to text, `ConfigError` for empty,
        reserved or unencodable names and values, `LimitExceeded` beyond 64 pairs or 4096 bytes.
        """
        if pairs is None:
            return EMPTY
        if isinstance(pairs, cls):
            return pairs
        if not isinstance(pairs, Mapping):
            raise TypeError(f"context must be a mapping of str to str, not {type(pairs).__name__}")
        if len(pairs) > MAX_PAIRS:
            raise LimitExceeded(
                f"the context has {len(pairs)} pairs, more than {MAX_PAIRS}",
                remedy=f"use at most {MAX_PAIRS} pairs; put what need not show in the key service's log into aad",
            )
        copy = dict(pairs)
        for key, value in copy.items():
            _check_pair(key, value)
        canonical = _canonical(copy)
        if len(canonical) > MAX_BYTES:
            raise LimitExceeded(
                f"the context takes {len(canonical)} bytes, more than {MAX_BYTES}",
                remedy=f"use at most {MAX_BYTES} bytes; put what need not show in the key service's log into aad",
            )
        return cls(copy, canonical)

    def with_reserved(self, **reserved: str) -> EncryptionContext:
        """Return this context with pairs of the library's own added. A `_` in a name becomes `-`."""
        pairs = {**self._pairs, **{key.replace("_", "-"): value for key, value in reserved.items()}}
        return EncryptionContext(pairs, _canonical(pairs))

    def canonical(self) -> bytes:
        """Return the pairs as bytes, which do not depend on the order the pairs were given in."""
        return self._canonical

    def __getitem__(self, key: str) -> str:
        return self._pairs[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._pairs)

    def __len__(self) -> int:
        return len(self._pairs)

    def __hash__(self) -> int:
        return hash(self._canonical)

    def __repr__(self) -> str:
        return f"EncryptionContext({dict(self._pairs)!r})"


def _check_pair(key: object, value: object) -> None:
    if not isinstance(key, str) or not isinstance(value, str):
        raise TypeError(
            "context must map str to str, "
            f"not {type(key).__name__} to {type(value).__name__}; convert both to str"
        )
    if not key or not value:
        raise ConfigError(
            f"the context pair {key!r} has an empty {'value' if key else 'name'}",
            remedy="leave the pair out",
        )
    if key.startswith(RESERVED_PREFIX):
        raise ConfigError(
            f"the context name {key!r} is reserved",
            remedy=f"choose a name that does not begin with {RESERVED_PREFIX!r}",
        )
    try:
        (key + value).encode()
    except UnicodeEncodeError:
        raise ConfigError(
            f"the context pair {key!r} cannot be encoded as UTF-8",
            remedy="remove the unpaired surrogates from it",
        ) from None


def _canonical(pairs: Mapping[str, str]) -> bytes:
    parts = [_U16.pack(len(pairs))]
    for key, value in sorted((k.encode(), v.encode()) for k, v in pairs.items()):
        if max(len(key), len(value)) > MAX_BYTES:
            # Checked here, before the 16-bit length would overflow.
            raise LimitExceeded(
                f"a context name or value is longer than {MAX_BYTES} bytes",
                remedy=f"use at most {MAX_BYTES} bytes for all pairs together",
            )
        parts += (_U16.pack(len(key)), key, _U16.pack(len(value)), value)
    return b"".join(parts)


EMPTY: Final = EncryptionContext({}, _canonical({}))
