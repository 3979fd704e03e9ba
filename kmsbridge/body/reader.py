"""Random access to a body: any chunk, without those before it.

Cobblestone reads from front to back only, so this is the scheme itself over HKDF-Expand and AES-GCM,
a dozen lines that the tests hold against the published vectors and against Cobblestone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import constant_time, hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from kmsbridge.body.sealing import CHUNK, OVERHEAD, SEALED_CHUNK, TAG
from kmsbridge.errors import AuthenticationError

_INFO: Final = b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\x00"
_SALT, _KEY, _NONCE, _COMMITMENT = 24, 32, 12, 32
_MAX_CHUNKS: Final = 2**38

ReadAt = Callable[[int, int], bytes]
"""(offset, length) -> that many bytes of the body, or fewer where it ends."""


class ChunkReader:
    """The plaintext chunks of one body of `sealed_size` bytes, read through `read_at`.

    The commitment and the last chunk are verified at once, so that `size`, the plaintext's length,
    can be relied on; every other chunk when it is read. Raises `AuthenticationError`.
    """

    def __init__(self, key: bytes, context: bytes, read_at: ReadAt, sealed_size: int) -> None:
        self._read_at = read_at
        self._aead, self._base_nonce = _derive(key, context, read_at(0, OVERHEAD))
        full_chunks, rest = divmod(sealed_size - OVERHEAD, SEALED_CHUNK)
        if rest < TAG or not 0 <= full_chunks < _MAX_CHUNKS:
            raise AuthenticationError
        self._last, self._last_length = full_chunks, rest
        self.size = full_chunks * CHUNK + rest - TAG
        self.chunk(full_chunks)

    def chunk(self, number: int) -> bytes:
        """Chunk `number` (from 0): plaintext bytes from `number * 16384` on."""
        length = self._last_length if number == self._last else SEALED_CHUNK
        sealed = self._read_at(OVERHEAD + number * SEALED_CHUNK, length)
        nonce = (self._base_nonce ^ number).to_bytes(_NONCE, "big")
        try:
            return self._aead.decrypt(nonce, sealed, None)
        except InvalidTag:
            raise AuthenticationError from None


def _derive(key: bytes, context: bytes, head: bytes) -> tuple[AESGCM, int]:
    salt, commitment = head[:_SALT], head[_SALT:]
    if len(key) != _KEY:
        raise ValueError("key must be 32 bytes")
    okm = HKDFExpand(hashes.SHA512(), _KEY + _NONCE + _COMMITMENT, _INFO + salt + context).derive(key)
    if not constant_time.bytes_eq(okm[_KEY + _NONCE :], commitment):
        raise AuthenticationError
    return AESGCM(okm[:_KEY]), int.from_bytes(okm[_KEY : _KEY + _NONCE], "big")


def commits(key: bytes, context: bytes, start: bytes | memoryview) -> bool:
    """TEMP: replaced when merged."""
    try:
        _derive(key, context, bytes(start[:OVERHEAD]))
    except AuthenticationError:
        return False
    return True
