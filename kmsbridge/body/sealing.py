"""Bodies sealed and opened from front to back, by `cryptography.cobblestone`."""

from __future__ import annotations

import io
from typing import Final

from cryptography.cobblestone import Cobblestone256Decryptor, Cobblestone256Encryptor
from cryptography.exceptions import InvalidTag

from kmsbridge.errors import AuthenticationError

CHUNK: Final = 16 * 1024
TAG: Final = 16
SEALED_CHUNK: Final = CHUNK + TAG
OVERHEAD: Final = 24 + 32
"""Bytes before the first chunk: salt and commitment."""

LARGE: Final = 2**18
"""From this many bytes on, results are built in place: joining copies costs half of the throughput."""

Buffer = bytes | bytearray | memoryview

new_key = Cobblestone256Encryptor.generate_key
"""32 bytes from the operating system."""


def sealed_length(plaintext_length: int) -> int:
    """How long the body of a plaintext is: its chunks are all full but the last, which is shorter."""
    return OVERHEAD + plaintext_length + TAG * (plaintext_length // CHUNK + 1)


def seal(key: bytes, context: bytes, plaintext: Buffer, prefix: bytes = b"") -> bytes:
    """`prefix` and the sealed `plaintext`. `key` is 32 uniformly random bytes."""
    encryptor = Cobblestone256Encryptor(key, context)
    if len(plaintext) < LARGE:
        return b"".join((prefix, encryptor.update(plaintext), encryptor.finalize()))
    whole = _blank(len(prefix) + sealed_length(len(plaintext)))
    with whole.getbuffer() as room:
        room[: len(prefix)] = prefix
        done = len(prefix) + encryptor.update_into(plaintext, room[len(prefix) :])
        room[done:] = encryptor.finalize()
    return whole.getvalue()


def open_sealed(key: bytes, context: bytes, sealed: bytes | memoryview) -> bytes:
    """The plaintext, all of it verified; `AuthenticationError` where any of it is not authentic.

    `sealed` must not change during the call: a byte altered between decryption and verification
    would escape both.
    """
    decryptor = Cobblestone256Decryptor(key, context)
    try:
        if len(sealed) >= LARGE:
            return _open_large(decryptor, sealed)
        full_chunks = decryptor.update(sealed)
        last = decryptor.finalize()
    except InvalidTag:
        raise AuthenticationError from None
    return full_chunks + last if full_chunks else last


def _open_large(decryptor: Cobblestone256Decryptor, sealed: bytes | memoryview) -> bytes:
    chunks, rest = divmod(len(sealed) - OVERHEAD, SEALED_CHUNK)
    whole = _blank(chunks * CHUNK + max(rest - TAG, 0))
    with whole.getbuffer() as room:
        done = decryptor.update_into(sealed, room)
        room[done:] = decryptor.finalize()
    return whole.getvalue()


def _blank(length: int) -> io.BytesIO:
    """A buffer to be filled, which becomes `bytes` without being copied."""
    whole = io.BytesIO()
    whole.seek(length - 1)
    whole.write(b"\0")
    return whole


class Sealer:
    """Seals one body as its plaintext arrives. Not safe to share between threads."""

    def __init__(self, key: bytes, context: bytes) -> None:
        self._encryptor = Cobblestone256Encryptor(key, context)
        self.update = self._encryptor.update
        self.update_into = self._encryptor.update_into
        self.finalize = self._encryptor.finalize

    @staticmethod
    def room(length: int) -> int:
        """The largest result of one `update_into` of `length` bytes."""
        return OVERHEAD + (length // CHUNK + 1) * SEALED_CHUNK


class Opener:
    """Opens one body as it arrives, chunk by verified chunk. Not safe to share between threads.

    What `update_into` and `update` give is authentic, but the body may still end too early: only
    `finalize` says that it is complete. Each raises `AuthenticationError`.
    """

    def __init__(self, key: bytes, context: bytes) -> None:
        self._decryptor = Cobblestone256Decryptor(key, context)

    @staticmethod
    def room(length: int) -> int:
        """The largest result of one `update_into` of `length` bytes."""
        return (length // SEALED_CHUNK + 1) * CHUNK

    def update(self, sealed: Buffer) -> bytes:
        """The plaintext of the chunks that `sealed` completes."""
        try:
            return self._decryptor.update(sealed)
        except InvalidTag:
            raise AuthenticationError from None

    def update_into(self, sealed: Buffer, buffer: bytearray | memoryview) -> int:
        """The same into `buffer`, which has `room`; wiped where a chunk is not authentic."""
        try:
            return self._decryptor.update_into(sealed, buffer)
        except InvalidTag:
            # The cipher leaves what it had decrypted before it saw that it was not authentic.
            buffer[:] = bytes(len(buffer))
            raise AuthenticationError from None

    def finalize(self) -> bytes:
        """The last chunk's plaintext."""
        try:
            return self._decryptor.finalize()
        except InvalidTag:
            raise AuthenticationError from None
