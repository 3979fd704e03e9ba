"""Checks of what callers pass, made when something is wrong already, so that they cost nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from kmsbridge.errors import KmsBridgeError

Buffer = bytes | bytearray | memoryview

INLINE: Final = 2**20
"""Payloads up to this many bytes are encrypted and decrypted on an event loop: in less than a millisecond."""


def check_bytes(value: object, name: str, instead: str = "") -> None:
    """Raise `TypeError`, naming `instead`, for what is not bytes-like and contiguous."""
    if isinstance(value, str):
        advice = f": use {instead} for text" if instead else ": encode it first"
        raise TypeError(f"{name} must be bytes-like, not str{advice}")
    try:
        view = memoryview(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name} must be bytes-like, not {type(value).__name__}") from None
    if not view.c_contiguous or view.itemsize != 1 or view.ndim != 1:
        raise TypeError(f"{name} must be a contiguous buffer of bytes: pass bytes({name})")


def as_bytes(value: object, name: str, instead: str = "") -> bytes:
    """Return `value` as bytes that nobody else can change."""
    check_bytes(value, name, instead)
    return bytes(value)  # type: ignore[call-overload, no-any-return]


def check_each(values: Sequence[object], name: str, instead: str = "") -> None:
    """Raise `TypeError`, naming the place, for one that is not bytes-like and contiguous."""
    for index, value in enumerate(values):
        if type(value) is not bytes:
            check_bytes(value, f"{name}[{index}]", instead)


def at_item(error: KmsBridgeError, index: int) -> KmsBridgeError:
    """Return `error`, which says from now on that it is about item `index` of many."""
    error.index = index
    error.add_note(f"item {index}, counted from 0")
    return error


def check_text(value: object) -> str:
    """Return `value`. Raises `TypeError` for what is not text."""
    if not isinstance(value, str):
        raise TypeError(f"text must be str, not {type(value).__name__}: use encrypt and decrypt for bytes")
    return value


def text_to_bytes(text: object) -> bytes:
    """Return `text` as UTF-8. Raises `ValueError` for unpaired surrogates."""
    try:
        return check_text(text).encode()
    except UnicodeEncodeError:
        # The error that Python makes holds the text itself.
        raise ValueError("text has unpaired surrogates and cannot be written as UTF-8") from None


def bytes_to_text(plaintext: bytes) -> str:
    """Return the text that is UTF-8 in `plaintext`. Raises `ValueError` where it is not."""
    try:
        return plaintext.decode()
    except UnicodeDecodeError:
        # The error that Python makes holds the plaintext.
        raise ValueError("the payload is not text: use decrypt for bytes") from None
