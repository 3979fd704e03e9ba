"""What goes into requests and comes out of answers, checked: a wrapped key is a stranger's text."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from kmsbridge.driver import ErrorKind, KeyState
from kmsbridge_vault import failures
from kmsbridge_vault.failures import VaultFailure

_CIPHERTEXT: Final = re.compile(rb"vault:v([1-9][0-9]{0,8}):([A-Za-z0-9+/]+={0,2})")
T = TypeVar("T")

_HOUR: Final = 3600
_DAY: Final = 86400


def version_of_ciphertext(ciphertext: bytes) -> str | None:
    """The version in `vault:vN:BASE64`; None for anything else, also for what Vault would overlook."""
    found = _CIPHERTEXT.fullmatch(ciphertext)
    if found is None:
        return None
    try:
        # Signs that stand for the same bytes would make two wrapped keys of one.
        sound = base64.b64encode(base64.b64decode(found[2], validate=True)) == found[2]
    except binascii.Error:
        return None
    return found[1].decode() if sound else None


def ciphertext_text(ciphertext: bytes) -> str:
    """What is sent; raises `VaultFailure` for what is no ciphertext."""
    if version_of_ciphertext(ciphertext) is None:
        raise VaultFailure(ErrorKind.NOT_AUTHENTIC, "invalid-ciphertext")
    return ciphertext.decode()


def new_ciphertext(data: Mapping[str, Any]) -> tuple[str, bytes]:
    """The version and ciphertext of an answer."""
    text = data.get("ciphertext")
    ciphertext = text.encode() if isinstance(text, str) and text.isascii() else b""
    version = version_of_ciphertext(ciphertext)
    if version is None:
        raise unreadable()
    return version, ciphertext


def plaintext(data: Mapping[str, Any]) -> bytes:
    """The bytes of an answer."""
    try:
        return base64.b64decode(data["plaintext"], validate=True)
    except (KeyError, TypeError, ValueError):
        pass  # raised below: the exception would carry the answer along
    raise unreadable()


def of_batch(
    data: Mapping[str, Any], length: int, read: Callable[[Mapping[str, Any]], T]
) -> list[T | ErrorKind]:
    """What `read` gives for each item of a batch of this length, or why the item failed."""
    items = data.get("batch_results")
    if not isinstance(items, list) or len(items) != length:
        raise unreadable()
    return [_failure_of(item) or read(item) for item in items]


def _failure_of(item: Any) -> ErrorKind | None:
    if not isinstance(item, dict):
        raise unreadable()
    error = item.get("error")
    if not error:
        return None
    return failures.kind_of_text(error) if isinstance(error, str) else ErrorKind.INVALID_REQUEST


def key_version(value: Any) -> str:
    """A number as text."""
    if isinstance(value, int) and 0 < value < 10**9:
        return str(value)
    raise unreadable()


def state(key: Mapping[str, Any]) -> KeyState:
    """A soft-deleted key can be restored; until then, where deletion is allowed, it is bound to be deleted."""
    if key.get("soft_deleted") is not True:
        return KeyState.ENABLED
    return KeyState.PENDING_DELETION if key.get("deletion_allowed") is True else KeyState.DISABLED


def rotation(key: Mapping[str, Any]) -> str:
    """How a key is rotated, and which of its versions no longer open, in words."""
    period, least = key.get("auto_rotate_period"), key.get("min_decryption_version")
    words = "by hand"
    if isinstance(period, int) and period > 0:
        words = f"each {period // _DAY} days" if period >= 2 * _DAY else f"each {period / _HOUR:g} hours"
    if isinstance(least, int) and least > 1:
        words += f"; versions before {least} no longer decrypt"
    return words


def may(rights: Any) -> bool | None:
    """Whether these capabilities of a path let a token post there; None where none are told."""
    if not isinstance(rights, list) or not rights:
        return None
    return "root" in rights or "update" in rights


def unreadable() -> VaultFailure:
    """An answer that is not Vault's; the call may be repeated."""
    return VaultFailure(ErrorKind.UNAVAILABLE, "unreadable")
