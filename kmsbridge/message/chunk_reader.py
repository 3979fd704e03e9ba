"""Random access to a body: decrypts any chunk without the chunks before it."""

from __future__ import annotations

from collections.abc import Callable
from hmac import compare_digest

from cryptography.exceptions import InvalidTag

from kmsbridge.errors import AuthenticationError
from kmsbridge.message.chunked import Step
from kmsbridge.message.cobblestone import (
    CHUNK,
    ENCRYPTED_CHUNK,
    MAX_CHUNKS,
    NONCE,
    OVERHEAD,
    SALT,
    TAG,
    derive,
)

ReadAt = Callable[[int, int], bytes]
"""A function of (offset, length) that returns that many bytes of the body, fewer only at its end."""


class ChunkReader:
    """The plaintext chunks of one body of `body_length` bytes, which is read through `read_at`.

    `size` is the plaintext's length in bytes. The constructor verifies the commitment and the last chunk, so
    `size` is authentic; every other chunk is verified when it is read. Raises `AuthenticationError`.
    """

    def __init__(self, key: bytes, context: bytes, read_at: ReadAt, body_length: int) -> None:
        self._read_at = read_at
        head = read_at(0, OVERHEAD)
        self._aead, nonce, commitment = derive(key, context, head[:SALT])
        full_chunks, rest = divmod(body_length - OVERHEAD, ENCRYPTED_CHUNK)
        if not compare_digest(commitment, head[SALT:]) or rest < TAG or not 0 <= full_chunks < MAX_CHUNKS:
            raise AuthenticationError
        self._base_nonce = int.from_bytes(nonce, "big")
        self._last, self._last_length = full_chunks, rest
        self.size = full_chunks * CHUNK + rest - TAG
        self.chunk(full_chunks)

    def chunk(self, number: int) -> bytes:
        """Decrypt chunk `number`, counted from 0, and return it: the plaintext from `number * 16384` on."""
        length = self._last_length if number == self._last else ENCRYPTED_CHUNK
        encrypted = self._read_at(OVERHEAD + number * ENCRYPTED_CHUNK, length)
        nonce = (self._base_nonce ^ number).to_bytes(NONCE, "big")
        try:
            return self._aead.decrypt(nonce, encrypted, None)
        except InvalidTag:
            raise AuthenticationError from None

    def decrypt_step(self, first: int, step: Step) -> None:
        """Decrypt full chunks, of which `first` is the number of the first, from `step.encrypted` into `step.plain`.

        Threads may share this. `step.plain` is wiped where a chunk is not authentic.
        """
        decrypt_into, base_nonce = self._aead.decrypt_into, self._base_nonce
        try:
            for number, (chunk, encrypted) in enumerate(step.chunks, first):
                decrypt_into((base_nonce ^ number).to_bytes(NONCE, "big"), encrypted, None, chunk)
        except InvalidTag:
            # The cipher leaves the plaintext of a chunk in the buffer although its tag was wrong.
            step.plain[:] = bytes(len(step.plain))
            raise AuthenticationError from None
