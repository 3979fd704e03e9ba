"""Derives a key from a passphrase."""

from __future__ import annotations

from cryptography.hazmat.primitives.kdf.argon2 import Argon2id


def passphrase_key(passphrase: bytes, salt: bytes, *, iterations: int, memory_kib: int, lanes: int) -> bytes:
    """Derive 32 bytes with Argon2id (RFC 9106). `salt` has at least 8 bytes, `memory_kib` is at least 8 * lanes."""
    kdf = Argon2id(salt=salt, length=32, iterations=iterations, lanes=lanes, memory_cost=memory_kib)
    return kdf.derive(passphrase)
