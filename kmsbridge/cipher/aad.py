"""Associated data as callers give it: bytes, or a tuple of parts."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from kmsbridge.cipher.arguments import Buffer, check_bytes
from kmsbridge.errors import LimitExceeded

if TYPE_CHECKING:
    from uuid import UUID

Aad = Buffer | tuple["str | int | Buffer | UUID", ...]
"""Bytes, or parts such as `("users", 42, "phone")`, which are encoded so that no two tuples are confused."""

MAX_AAD: Final = 1 << 20
"""The most bytes of aad. It is no part of a message, but a reader must have it as a whole."""
MAX_PARTS: Final = 0xFFFF


def as_aad(value: object, name: str = "aad") -> bytes:
    """Return `value` as bytes that nobody else can change.

    Raise `TypeError` for anything but contiguous bytes or a tuple of parts, `ValueError` for text with unpaired
    surrogates, and `LimitExceeded` beyond 1 MiB or 65535 parts.
    """
    if isinstance(value, tuple):
        value = _encoded(value, name)
    else:
        check_bytes(value, name)
    length = len(value)  # type: ignore[arg-type]
    if length > MAX_AAD:
        raise LimitExceeded(
            f"{name} has {length} bytes",
            remedy=f"{MAX_AAD} bytes is the limit; pass a hash of what is longer",
        )
    return bytes(value)  # type: ignore[call-overload, no-any-return]


def one_each(aads: Sequence[Aad] | None, count: int) -> Sequence[bytes]:
    """Return the aads as bytes, or as many empty ones.

    Raise `TypeError` where they are not one for each, and what `as_aad` raises.
    """
    if aads is None:
        return [b""] * count
    if isinstance(aads, (str, bytes, bytearray, memoryview)) or len(aads) != count:
        raise TypeError(f"aads must be a sequence of {count} values, one for each: bytes-like or tuples")
    return [
        aad if type(aad) is bytes and len(aad) <= MAX_AAD else as_aad(aad, f"aads[{index}]")
        for index, aad in enumerate(aads)
    ]


def _encoded(parts: tuple[object, ...], name: str) -> bytes:
    """Return a tuple's one encoding: the number of parts (2 bytes), then the length (4 bytes) and bytes of each."""
    if len(parts) > MAX_PARTS:
        raise LimitExceeded(f"{name} has {len(parts)} parts", remedy=f"{MAX_PARTS} parts is the limit")
    encoded = [len(parts).to_bytes(2, "big")]
    for number, part in enumerate(parts):
        data = _part(part, f"{name}[{number}]")
        encoded += (len(data).to_bytes(4, "big"), data)
    return b"".join(encoded)


def _part(part: object, name: str) -> bytes:
    if isinstance(part, str):
        try:
            return part.encode()
        except UnicodeEncodeError:
            # The error that Python makes holds the text itself.
            raise ValueError(f"{name} has unpaired surrogates and cannot be written as UTF-8") from None
    if isinstance(part, int) and not isinstance(part, bool):
        return str(int(part)).encode()  # not as an enumeration may write itself
    uuid = sys.modules.get("uuid")  # whoever passes one has imported it
    if uuid is not None and isinstance(part, uuid.UUID):
        return str(part).encode()
    if isinstance(part, (bytes, bytearray, memoryview)):
        check_bytes(part, name)
        return bytes(part)
    raise TypeError(f"{name} must be str, int, bytes-like or uuid.UUID, not {type(part).__name__}")
