"""Seals and opens bodies: Cobblestone-256, whole, streamed and at random. The only importer of ciphers.

The scheme is https://c2sp.org/chunked-encryption with SHA-512 and AES-256-GCM: a 24-byte salt and a
32-byte key commitment, then chunks of 16 KiB plaintext with a 16-byte tag each, the last one shorter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kmsbridge.body.scheme import CHUNK, OVERHEAD, SEALED_CHUNK, commits, new_key
from kmsbridge.body.sealing import Opener, Sealer, Step, open_sealed, seal, sealed_length

if TYPE_CHECKING:
    from kmsbridge.body.passphrase import passphrase_key
    from kmsbridge.body.reader import ChunkReader, ReadAt

__all__ = [
    "CHUNK",
    "OVERHEAD",
    "SEALED_CHUNK",
    "ChunkReader",
    "Opener",
    "ReadAt",
    "Sealer",
    "Step",
    "commits",
    "new_key",
    "open_sealed",
    "passphrase_key",
    "seal",
    "sealed_length",
]

_LATE = {
    "ChunkReader": "kmsbridge.body.reader",
    "ReadAt": "kmsbridge.body.reader",
    "passphrase_key": "kmsbridge.body.passphrase",
}


def __getattr__(name: str) -> Any:
    """Import what few programs need when it is first asked for (PEP 562)."""
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LATE[name]), name)
