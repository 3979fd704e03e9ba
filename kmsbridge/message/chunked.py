"""Bodies sealed and opened from front to back."""

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
"""From this many bytes on, results are built in place: joining copies costs half of the throughput."""

Buffer = bytes | bytearray | memoryview


def encrypted_length(plaintext_length: int) -> int:
    """How long the body of a plaintext is: its chunks are all full but the last, which is shorter."""
    return OVERHEAD + plaintext_length + TAG * (plaintext_length // CHUNK + 1)


def encrypt(key: bytes, context: bytes, plaintext: Buffer, prefix: bytes = b"") -> bytes:
    """`prefix` and the sealed `plaintext`. `key` is 32 uniformly random bytes."""
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
    encryptor, whole = BodyEncryptor(key, context), _blank(len(prefix) + encrypted_length(len(plaintext)))
    with whole.getbuffer() as room:
        room[: len(prefix)] = prefix
        done = len(prefix) + encryptor.update_into(plaintext, room[len(prefix) :])
        room[done:] = encryptor.finalize()
    return whole.getvalue()


def decrypt(key: bytes, context: bytes, sealed: bytes | memoryview) -> bytes:
    """The plaintext, all of it verified; `AuthenticationError` where any of it is not authentic.

    `sealed` must not change during the call: a byte altered between decryption and verification
    would escape both.
    """
    decryptor = Cobblestone256Decryptor(key, context)
    try:
        if len(sealed) >= LARGE:
            return _decrypt_large(decryptor, sealed)
        full_chunks = decryptor.update(sealed)
        last = decryptor.finalize()
    except InvalidTag:
        raise AuthenticationError from None
    return full_chunks + last if full_chunks else last


def _decrypt_large(decryptor: Cobblestone256Decryptor, sealed: bytes | memoryview) -> bytes:
    chunks, rest = divmod(len(sealed) - OVERHEAD, ENCRYPTED_CHUNK)
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


class Step:
    """Buffers for one step of a stream that is sealed: `plain` to read into, and where it is sealed to.

    They are used again for every step, and cut into chunks once, which is a tenth of what sealing costs.
    """

    __slots__ = ("chunks", "plain", "sealed")

    def __init__(self, chunks: int) -> None:
        self.plain = memoryview(bytearray(chunks * CHUNK))
        self.sealed = memoryview(bytearray(BodyEncryptor.output_size(chunks * CHUNK)))
        self.chunks = _cut(self.plain, self.sealed)


class BodyEncryptor:
    """Seals one body as its plaintext arrives. Not safe to share between threads."""

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
        """The largest result of one `update_into` of `length` bytes."""
        return OVERHEAD + (length // CHUNK + 1) * ENCRYPTED_CHUNK

    def update(self, plaintext: Buffer) -> bytes:
        """Encrypt `plaintext`; return the chunks that it completes. What is left over waits for the next call."""
        sealed = memoryview(bytearray(self.output_size(len(plaintext))))
        return bytes(sealed[: self.update_into(plaintext, sealed)])

    def update_into(self, plaintext: Buffer, buffer: bytearray | memoryview) -> int:
        """The same into `buffer`, which has `output_size`; gives how many bytes there are."""
        self._check_going_on()
        plain, sealed = memoryview(plaintext), memoryview(buffer)
        start, self._start = self._start, b""
        sealed[: len(start)] = start
        done = len(start)
        if self._rest:
            missing = CHUNK - len(self._rest)
            self._rest += plain[:missing]
            if len(self._rest) < CHUNK:
                return done
            first, self._rest = self._rest, bytearray()
            done += self._encrypt_chunks(_cut(memoryview(first), sealed[done:]))
            plain = plain[missing:]
        full = len(plain) // CHUNK * CHUNK
        done += self._encrypt_chunks(_cut(plain[:full], sealed[done:]))
        self._rest += plain[full:]
        return done

    def encrypt_step(self, step: Step, count: int) -> memoryview:
        """Encrypt the first `count` bytes of `step.plain`, and return a view of the chunks that they complete.

        The view is of `step.sealed`, so it is valid until the next step.
        """
        if count < len(step.plain) or self._rest or self._start:
            return step.sealed[: self.update_into(step.plain[:count], step.sealed)]
        self._check_going_on()
        return step.sealed[: self._encrypt_chunks(step.chunks)]

    def finalize(self) -> bytes:
        """The last chunk, which is shorter than the others and may be empty. Nothing can follow."""
        self._check_going_on()
        self._ended = True
        nonce = (self._base_nonce ^ self._number).to_bytes(NONCE, "big")
        last, self._rest = self._rest, bytearray()
        return self._start + self._aead.encrypt(nonce, last, None)

    def _encrypt_chunks(self, chunks: Sequence[tuple[memoryview, memoryview]]) -> int:
        encrypt_into, base_nonce, first = self._aead.encrypt_into, self._base_nonce, self._number
        self._number += len(chunks)  # before any is sealed: an interrupt must not have a nonce used twice
        for number, (chunk, sealed) in enumerate(chunks, first):
            encrypt_into((base_nonce ^ number).to_bytes(NONCE, "big"), chunk, None, sealed)
        return len(chunks) * ENCRYPTED_CHUNK

    def _check_going_on(self) -> None:
        if self._ended:  # a chunk sealed twice, with other bytes, would give both away
            raise AlreadyFinalized("the body is complete")


def _cut(plain: memoryview, sealed: memoryview) -> list[tuple[memoryview, memoryview]]:
    return [
        (plain[n * CHUNK : (n + 1) * CHUNK], sealed[n * ENCRYPTED_CHUNK : (n + 1) * ENCRYPTED_CHUNK])
        for n in range(len(plain) // CHUNK)
    ]


class BodyDecryptor:
    """Opens one body as it arrives, chunk by verified chunk. Not safe to share between threads.

    What `update_into` and `update` give is authentic, but the body may still end too early: only
    `finalize` says that it is complete. Each raises `AuthenticationError`.
    """

    def __init__(self, key: bytes, context: bytes) -> None:
        self._decryptor = Cobblestone256Decryptor(key, context)

    @staticmethod
    def output_size(length: int) -> int:
        """The largest result of one `update_into` of `length` bytes."""
        return (length // ENCRYPTED_CHUNK + 1) * CHUNK

    def update(self, sealed: Buffer) -> bytes:
        """The plaintext of the chunks that `sealed` completes."""
        try:
            return self._decryptor.update(sealed)
        except InvalidTag:
            raise AuthenticationError from None

    def update_into(self, sealed: Buffer, buffer: bytearray | memoryview) -> int:
        """The same into `buffer`, which has `output_size`; wiped where a chunk is not authentic."""
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
