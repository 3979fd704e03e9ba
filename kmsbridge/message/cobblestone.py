"""The encryption scheme of bodies: the key, nonce and commitment that are derived for one body.

https://c2sp.org/chunked-encryption with SHA-512 and AES-256-GCM, a dozen lines that the tests compare with
the published vectors and with `cryptography.cobblestone`. That implementation draws its salts from a generator
within the process, whose state a copy of the process shares; here every salt comes from the operating system.
"""

from __future__ import annotations

from hmac import compare_digest
from os import urandom
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from kmsbridge.secret import CipherKey, Secret

CHUNK: Final = 16 * 1024
TAG: Final = 16
ENCRYPTED_CHUNK: Final = CHUNK + TAG
KEY: Final = 32
NONCE: Final = 12
SALT: Final = 24
COMMITMENT: Final = 32
OVERHEAD: Final = SALT + COMMITMENT
"""The number of bytes before the first chunk: salt and commitment."""
MAX_CHUNKS: Final = 2**38

HASH = hashes.SHA512()
_INFO: Final = b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\x00"
_DERIVED: Final = KEY + NONCE + COMMITMENT


def derive(key: bytes, context: bytes, salt: bytes) -> tuple[AESGCM, bytes, bytes]:
    """Return the cipher of the chunks, the nonce of chunk 0 and the commitment for the body with this salt.

    Raises `ValueError` for a key that is not 32 bytes long.
    """
    if len(key) != KEY:
        raise ValueError("key must be 32 bytes")
    derived = HKDFExpand(HASH, _DERIVED, _INFO + salt + context).derive(key)
    _overwritten = Secret(derived)
    aead = AESGCM(CipherKey(memoryview(derived)[:KEY]))
    return aead, derived[KEY : KEY + NONCE], derived[KEY + NONCE :]


def new_key() -> bytes:
    """Return a new random key: 32 bytes from the operating system."""
    return urandom(KEY)


def commits(key: bytes, context: bytes, start: bytes | memoryview) -> bool:
    """Return whether the body that begins with `start` commits to this key and context.

    Only the first 56 bytes of `start` are used; with fewer the result is False. Raises `ValueError` for a key that
    is not 32 bytes long.
    """
    head = bytes(start[:OVERHEAD])
    return compare_digest(derive(key, context, head[:SALT])[2], head[SALT:])
