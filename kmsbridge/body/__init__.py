"""Seals and opens bodies: Cobblestone-256, whole, streamed and at random. The only importer of ciphers.

The scheme is https://c2sp.org/chunked-encryption with SHA-512 and AES-256-GCM: a 24-byte salt and a
32-byte key commitment, then chunks of 16 KiB plaintext with a 16-byte tag each, the last one shorter.
"""

from kmsbridge.body.passphrase import passphrase_key
from kmsbridge.body.reader import ChunkReader, ReadAt
from kmsbridge.body.sealing import (
    CHUNK,
    OVERHEAD,
    SEALED_CHUNK,
    Opener,
    Sealer,
    new_key,
    open_sealed,
    seal,
    sealed_length,
)

__all__ = [
    "CHUNK",
    "OVERHEAD",
    "SEALED_CHUNK",
    "ChunkReader",
    "Opener",
    "ReadAt",
    "Sealer",
    "new_key",
    "open_sealed",
    "passphrase_key",
    "seal",
    "sealed_length",
]
