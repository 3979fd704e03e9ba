"""Encrypts and decrypts bodies from front to back."""

from __future__ import annotations

import io
from collections.abc import Sequence
from os import urandom
from typing import Final

from cryptography.cobblestone import Cobblestone256Decryptor
from cryptography.exceptions import AlreadyFinalized, InvalidTag

from kmsbridge.errors import AuthenticationError
from kmsbridge.message.cobblestone import CHUNK, ENCRYPTED_CHUNK, NONCE, OVERHEAD, SALT, TAG, derive

LARGE: Final = 2**18
LARGE_TO_ENCRYPT: Final = 2**17
"""The lengths in bytes from which results are built in place: joining copies costs half of the throughput."""

Buffer = bytes | bytearray | memoryview
ChunkViews = Sequence[tuple[memoryview, memoryview]]
"""Views of full chunks that follow each other: of the plaintext, and of the encrypted chunk, 16 bytes longer."""


def encrypted_length(plaintext_length: int) -> int:
    """Return the length in bytes of the body of a plaintext. All its chunks are full but the last, which is shorter."""
    return OVERHEAD + plaintext_length + TAG * (plaintext_length // CHUNK + 1)


def encrypt(key: bytes, context: bytes, plaintext: Buffer, prefix: bytes = b"") -> bytes:
    """Encrypt `plaintext`; return `prefix` followed by the body. `key` is 32 uniformly random bytes."""
    if len(plaintext) >= LARGE_TO_ENCRYPT:
        return _encrypt_large(key, context, plaintext, prefix)
    salt = urandom(SALT)
    aead, nonce, commitment = derive(key, context, salt)
    if len(plaintext) < CHUNK:
        return b"".join((prefix, salt, commitment, aead.encrypt(nonce, plaintext, None)))
    base_nonce, view = int.from_bytes(nonce, "big"), memoryview(plaintext)
    chunks = (
        aead.encrypt((base_nonce ^ n).to_bytes(NONCE, "big"), view[n * CHUNK : (n + 1) * CHUNK], None)
        for n in range(len(view) // CHUNK + 1)
    )
    return b"".join((prefix, salt, commitment, *chunks))


def _encrypt_large(key: bytes, context: bytes, plaintext: Buffer, prefix: bytes) -> bytes:
    encryptor, result = BodyEncryptor(key, context), _buffer(len(prefix) + encrypted_length(len(plaintext)))
    with result.getbuffer() as view:
        view[: len(prefix)] = prefix
        done = len(prefix) + encryptor.update_into(plaintext, view[len(prefix) :])
        view[done:] = encryptor.finalize()
    return result.getvalue()


def decrypt(key: bytes, context: bytes, body: bytes | memoryview) -> bytes:
    """Return the plaintext of a body once all of it is verified.

    Raises `AuthenticationError` where any of it is not authentic. `body` must not change during the call:
    a byte changed between decryption and verification would not be noticed.
    """
    decryptor = Cobblestone256Decryptor(key, context)
    try:
        if len(body) >= LARGE:
            return _decrypt_large(decryptor, body)
        full_chunks = decryptor.update(body)
        last = decryptor.finalize()
    except InvalidTag:
        raise AuthenticationError from None
    return full_chunks + last if full_chunks else last


def _decrypt_large(decryptor: Cobblestone256Decryptor, body: bytes | memoryview) -> bytes:
    chunks, rest = divmod(len(body) - OVERHEAD, ENCRYPTED_CHUNK)
    result = _buffer(chunks * CHUNK + max(rest - TAG, 0))
    with result.getbuffer() as view:
        done = decryptor.update_into(body, view)
        view[done:] = decryptor.finalize()
    return result.getvalue()


def _buffer(length: int) -> io.BytesIO:
    """Return a buffer of `length` bytes, which `getvalue` turns into `bytes` without a copy."""
    buffer = io.BytesIO()
    buffer.seek(length - 1)
    buffer.write(b"\0")
    return buffer


class Step:
    """The buffers of one step through a body: `plain` has the plaintext of some chunks, `encrypted` the chunks.

    They are used again for every step, and cut into `chunks`, pairs of views, once: cutting costs a tenth of
    encrypting. `output` has room for all that one step of encrypting a stream can write.
    """

    __slots__ = ("chunks", "encrypted", "output", "plain")

    def __init__(self, chunks: int) -> None:
        self.plain = memoryview(bytearray(chunks * CHUNK))
        self.output = memoryview(bytearray(BodyEncryptor.output_size(chunks * CHUNK)))
        self.encrypted = self.output[: chunks * ENCRYPTED_CHUNK]
        self.chunks = _cut(self.plain, self.encrypted)


class BodyEncryptor:
    """Encrypts one body as its plaintext arrives. Threads may share `encrypt_reserved`, and nothing else."""

    __slots__ = ("_aead", "_base_nonce", "_ended", "_number", "_rest", "_start")

    def __init__(self, key: bytes, context: bytes) -> None:
        salt = urandom(SALT)
        self._aead, nonce, commitment = derive(key, context, salt)
        self._start = salt + commitment
        self._base_nonce, self._number = int.from_bytes(nonce, "big"), 0
        self._rest = bytearray()
        self._ended = False

    @staticmethod
    def output_size(length: int) -> int:
        """Return the most bytes that one `update_into` of `length` bytes writes."""
        return OVERHEAD + (length // CHUNK + 1) * ENCRYPTED_CHUNK

    def update(self, plaintext: Buffer) -> bytes:
        """Encrypt `plaintext`; return the chunks that it completes. The rest is kept for the next call."""
        encrypted = memoryview(bytearray(self.output_size(len(plaintext))))
        return bytes(encrypted[: self.update_into(plaintext, encrypted)])

    def update_into(self, plaintext: Buffer, buffer: bytearray | memoryview) -> int:
        """Encrypt `plaintext` into `buffer`, of `output_size` bytes or more; return the number of bytes written."""
        self._check_not_ended()
        plain, encrypted = memoryview(plaintext), memoryview(buffer)
        start, self._start = self._start, b""
        encrypted[: len(start)] = start
        done = len(start)
        if self._rest:
            missing = CHUNK - len(self._rest)
            self._rest += plain[:missing]
            if len(self._rest) < CHUNK:
                return done
            first, self._rest = self._rest, bytearray()
            done += self._encrypt_chunks(_cut(memoryview(first), encrypted[done:]))
            plain = plain[missing:]
        full = len(plain) // CHUNK * CHUNK
        done += self._encrypt_chunks(_cut(plain[:full], encrypted[done:]))
        self._rest += plain[full:]
        return done

    def encrypt_step(self, step: Step, count: int) -> memoryview:
        """Encrypt the first `count` bytes of `step.plain`, and return a view of the chunks that they complete.

        The view is of `step.output`, so it is valid until the next step.
        """
        if count < len(step.plain) or self._rest or self._start:
            return step.output[: self.update_into(step.plain[:count], step.output)]
        self._check_not_ended()
        return step.output[: self._encrypt_chunks(step.chunks)]

    def reserve(self, count: int) -> int:
        """Reserve the next `count` chunks for `encrypt_reserved`; return the number of the first.

        What the other methods encrypt from now on comes behind them.
        """
        self._check_not_ended()
        first = self._number
        self._number += count
        return first

    def encrypt_reserved(self, first: int, chunks: ChunkViews) -> None:
        """Encrypt reserved chunks, `first` being the number of the first. Each only once: its number is its nonce."""
        encrypt_into, base_nonce = self._aead.encrypt_into, self._base_nonce
        for number, (chunk, encrypted) in enumerate(chunks, first):
            encrypt_into((base_nonce ^ number).to_bytes(NONCE, "big"), chunk, None, encrypted)

    def finalize(self) -> bytes:
        """Return the encrypted last chunk, which is shorter than the others and may be empty.

        Every later call raises `AlreadyFinalized`.
        """
        self._check_not_ended()
        self._ended = True
        nonce = (self._base_nonce ^ self._number).to_bytes(NONCE, "big")
        last, self._rest = self._rest, bytearray()
        return self._start + self._aead.encrypt(nonce, last, None)

    def _encrypt_chunks(self, chunks: ChunkViews) -> int:
        # Reserved before encrypting: after an interrupt no nonce may be used again.
        self.encrypt_reserved(self.reserve(len(chunks)), chunks)
        return len(chunks) * ENCRYPTED_CHUNK

    def _check_not_ended(self) -> None:
        if self._ended:  # two different chunks under one nonce would reveal both
            raise AlreadyFinalized("the body is complete")


def _cut(plain: memoryview, encrypted: memoryview) -> ChunkViews:
    return [
        (plain[n * CHUNK : (n + 1) * CHUNK], encrypted[n * ENCRYPTED_CHUNK : (n + 1) * ENCRYPTED_CHUNK])
        for n in range(len(plain) // CHUNK)
    ]


class BodyDecryptor:
    """Decrypts one body as it arrives, and verifies every chunk. Not safe to share between threads.

    The results of `update` and `update_into` are authentic, but the body may still end too early: only
    `finalize` verifies that it is complete. Each of them raises `AuthenticationError`.
    """

    def __init__(self, key: bytes, context: bytes) -> None:
        self._decryptor = Cobblestone256Decryptor(key, context)

    @staticmethod
    def output_size(length: int) -> int:
        """Return the most bytes that one `update_into` of `length` bytes writes."""
        return (length // ENCRYPTED_CHUNK + 1) * CHUNK

    def update(self, data: Buffer) -> bytes:
        """Decrypt the next part of the body; return the plaintext of the chunks that it completes."""
        try:
            return self._decryptor.update(data)
        except InvalidTag:
            raise AuthenticationError from None

    def update_into(self, data: Buffer, buffer: bytearray | memoryview) -> int:
        """Decrypt the next part of the body into `buffer`, of `output_size` bytes or more.

        Returns the number of bytes written. `buffer` is wiped where a chunk is not authentic.
        """
        try:
            return self._decryptor.update_into(data, buffer)
        except InvalidTag:
            # The cipher leaves the plaintext of a chunk in the buffer although its tag was wrong.
            buffer[:] = bytes(len(buffer))
            raise AuthenticationError from None

    def finalize(self) -> bytes:
        """Return the plaintext of the last chunk, and verify that the body is complete."""
        try:
            return self._decryptor.finalize()
        except InvalidTag:
            raise AuthenticationError from None
