"""What a key's id must be, so that it fits into a message; and what binds a context where nobody else does."""

from __future__ import annotations

import hashlib
import math
from typing import Any

from kmsbridge import errors
from kmsbridge.driver import EncryptionContext
from kmsbridge.message import MAX_KEY_ID


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
