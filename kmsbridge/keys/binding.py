"""Binding the encryption context to what is wrapped, where the key service does not."""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

from kmsbridge.context import EncryptionContext
from kmsbridge.errors import AuthenticationError

BOUND: Final = 32
"""Bytes that binding adds: the SHA-256 of the context's canonical form, behind the payload."""


def bind(payload: bytes, context: EncryptionContext) -> bytes:
    """Return what is wrapped in place of `payload`."""
    return payload + _context_hash(context)


def unbind(bound: bytes, context: EncryptionContext) -> bytes:
    """Return the payload. Raise `AuthenticationError` where it was bound to another context, or to none."""
    payload, tag = bound[:-BOUND], bound[-BOUND:]
    if not hmac.compare_digest(tag, _context_hash(context)):
        raise AuthenticationError
    return payload


def _context_hash(context: EncryptionContext) -> bytes:
    return hashlib.sha256(context.canonical()).digest()
