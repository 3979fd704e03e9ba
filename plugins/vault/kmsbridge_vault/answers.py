"""Checks what goes into requests and reads answers. Wrapped keys come from messages, so they are not trusted."""

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
    """Return the version in `vault:vN:BASE64`, or None for anything else. Stricter than Vault about the base64."""
    found = _CIPHERTEXT.fullmatch(ciphertext)
    if found is None:
        return None
    try:
        # Only the canonical encoding: otherwise two different wrapped keys could mean the same bytes.
        is_canonical = base64.b64encode(base64.b64decode(found[2], validate=True)) == found[2]
    except binascii.Error:
        return None
    return found[1].decode() if is_canonical else None


def ciphertext_text(ciphertext: bytes) -> str:
    """Return the ciphertext as text for a request. Raises `VaultFailure` if it is not a ciphertext of Vault."""
    if version_of_ciphertext(ciphertext) is None:
        raise VaultFailure(ErrorKind.NOT_AUTHENTIC, "invalid-ciphertext")
    return ciphertext.decode()


def new_ciphertext(data: Mapping[str, Any]) -> tuple[str, bytes]:
    """Return the version and ciphertext in an answer. Raises `VaultFailure`."""
    text = data.get("ciphertext")
    ciphertext = text.encode() if isinstance(text, str) and text.isascii() else b""
    version = version_of_ciphertext(ciphertext)
    if version is None:
        raise unreadable()
    return version, ciphertext


def plaintext(data: Mapping[str, Any]) -> bytes:
    """Return the plaintext in an answer. Raises `VaultFailure`."""
    try:
        return base64.b64decode(data["plaintext"], validate=True)
    except (KeyError, TypeError, ValueError):
        pass  # raised below: here the new exception would keep this one, whose frames contain the answer
    raise unreadable()


def batch_items(data: Mapping[str, Any], length: int) -> list[Mapping[str, Any]]:
    """Return the results of a batch. Raises `VaultFailure` if the answer does not have `length` of them."""
    items = data.get("batch_results")
    if (
        not isinstance(items, list)
        or len(items) != length
        or not all(isinstance(each, dict) for each in items)
    ):
        raise unreadable()
    return items


def of_item(item: Mapping[str, Any], read: Callable[[Mapping[str, Any]], T]) -> T | ErrorKind | None:
    """Return `read(item)`; for one that failed an `ErrorKind`, or None if its error says nothing known."""
    error = item.get("error")
    if not error:
        return read(item)
    return failures.kind_of_text(error) if isinstance(error, str) else None


def ignores_associated_data(answer: Mapping[str, Any]) -> bool:
    """Return whether the server warns that it ignored `associated_data`. It does not warn of items in a batch."""
    warnings = answer.get("warnings")
    return isinstance(warnings, list) and any(
        "unrecognized parameters" in text and "associated_data" in text
        for text in warnings
        if isinstance(text, str)
    )


def key_version(value: Any) -> str:
    """Return a version number as text. Raises `VaultFailure` if `value` is not one."""
    if isinstance(value, int) and 0 < value < 10**9:
        return str(value)
    raise unreadable()


def state(key: Mapping[str, Any]) -> KeyState:
    """Return the key's state. A soft-deleted key counts as pending deletion if its deletion is allowed."""
    if key.get("soft_deleted") is not True:
        return KeyState.ENABLED
    return KeyState.PENDING_DELETION if key.get("deletion_allowed") is True else KeyState.DISABLED


def rotation(key: Mapping[str, Any]) -> str:
    """Return a text that says how a key is rotated and which of its versions no longer decrypt."""
    period, least = key.get("auto_rotate_period"), key.get("min_decryption_version")
    text = "by hand"
    if isinstance(period, int) and period > 0:
        text = f"every {period // _DAY} days" if period >= 2 * _DAY else f"every {period / _HOUR:g} hours"
    if isinstance(least, int) and least > 1:
        text += f"; versions before {least} no longer decrypt"
    return text


def may_update(rights: Any) -> bool | None:
    """Return whether a token's capabilities on a path include "update"; None if the answer lists none."""
    if not isinstance(rights, list) or not rights:
        return None
    return "root" in rights or "update" in rights


def unreadable() -> VaultFailure:
    """Return the failure for an answer that is not Vault's. It is retried."""
    return VaultFailure(ErrorKind.UNAVAILABLE, failures.UNREADABLE)
