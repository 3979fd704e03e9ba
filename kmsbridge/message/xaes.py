"""The cipher of compact bodies: https://c2sp.org/XAES-256-GCM, which is AES-256-GCM with nonces of 24 bytes.

The first half of a nonce, its prefix, chooses an AES key that is derived from the XAES key; the other half is the
nonce of AES-GCM. So all messages whose nonces have one prefix share one derivation.
"""

from __future__ import annotations

from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from kmsbridge.secret import CipherKey, Secret

KEY: Final = 32
PREFIX: Final = 12
NONCE: Final = 24
TAG: Final = 16

_BLOCK: Final = 16
_REDUCTION: Final = 0x87
"""The term that doubling in GF(2^128) adds for the bit that leaves at the top (RFC 4493, section 2.3)."""
_STARTS: Final = (b"\x00\x01X\x00", b"\x00\x02X\x00")
"""The first four bytes of the two blocks that are encrypted into the derived key: a counter, the letter X, and zero."""


def derive(key: bytes, prefix: bytes) -> AESGCM:
    """Return the AES-256-GCM cipher for nonces that begin with `prefix`; it takes their last 12 bytes.

    Raises `ValueError` for a key that is not 32 bytes long, or a prefix that is not 12.
    """
    if len(key) != KEY or len(prefix) != PREFIX:
        raise ValueError("key must be 32 bytes and prefix 12 bytes")
    # Each use encrypts whole blocks one by one, which is CMAC's way of making a key; nothing of a user's goes
    # through ECB.
    encrypt = Cipher(algorithms.AES256(key), modes.ECB()).encryptor().update  # noqa: S305
    mask = _doubled(encrypt(bytes(_BLOCK)))
    blocks = (int.from_bytes(start + prefix, "big") ^ mask for start in _STARTS)
    derived = encrypt(b"".join(block.to_bytes(_BLOCK, "big") for block in blocks))
    _overwritten = Secret(derived)
    return AESGCM(CipherKey(derived))


def _doubled(block: bytes) -> int:
    """Return CMAC's first subkey."""
    doubled = int.from_bytes(block, "big") << 1
    return (doubled & (1 << 8 * _BLOCK) - 1) ^ (_REDUCTION if doubled >> 8 * _BLOCK else 0)
