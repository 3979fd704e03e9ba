"""What a driver's answers must be, so that they fit into a message; and what binds a context where nobody else does."""

from __future__ import annotations

import hashlib
import math
from typing import Any, Final

from kmsbridge import errors
from kmsbridge.driver import EncryptionContext, WrappedKey
from kmsbridge.message import MAX_KEY_ID, MAX_KEY_VERSION, MAX_WRAPPED

HASH_LENGTH: Final = 32
"""Bytes of SHA-256 that travel with the payload to a provider that binds no context."""


def context_hash(context: EncryptionContext) -> bytes:
    """What goes along with the payload to a provider that binds no context."""
    return hashlib.sha256(context.canonical()).digest()


def utf8_length(text: Any) -> float:
    """Infinite for what no message can hold."""
    try:
        return len(text.encode())
    except (AttributeError, UnicodeEncodeError):
        return math.inf


def check_key_id(key_id: Any, scheme: str) -> None:
    """Raises `ConfigError`."""
    if (
        not isinstance(key_id, str)
        or not key_id.startswith(f"{scheme}:")
        or not len(scheme) + 1 < utf8_length(key_id) <= MAX_KEY_ID
    ):
        raise errors.ConfigError(
            f"the {scheme} driver's key id is not 'scheme:name' of at most {MAX_KEY_ID} bytes",
            remedy="shorten the key's name, or report it to the driver's author",
        )


def fault_in_wrapped(wrapped: Any, key_id: str, payload: bytes = b"") -> str:
    """Return what is wrong with an answer to `wrap` or `rewrap` of the key; empty if nothing is."""
    if not isinstance(wrapped, WrappedKey) or not isinstance(wrapped.ciphertext, bytes):
        return "it returned no WrappedKey"
    if wrapped.key_id != key_id:
        return "it answered with another key's id"
    if utf8_length(wrapped.version) > MAX_KEY_VERSION or not 1 <= len(wrapped.ciphertext) <= MAX_WRAPPED:
        return "its answer does not fit into a message"
    if len(payload) >= HASH_LENGTH and payload in wrapped.ciphertext:
        return "it returned the payload unencrypted"
    return ""
