"""The cipher alone: what every figure of kmsbridge is held against."""

from __future__ import annotations

import os
from typing import BinaryIO

from cryptography.cobblestone import Cobblestone256Decryptor, Cobblestone256Encryptor
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from kmsbridge.cipher.files import ENCRYPTED_STEP, STEP
from kmsbridge.message import chunked

KEY = Cobblestone256Encryptor.generate_key()
CONTEXT = b"kmsbridge/v1\0" + (2).to_bytes(4, "big") + b"\0\0"
"""As long as the one that kmsbridge uses where the caller gives none."""


AEAD = AESGCM(KEY)


def seal(plaintext: bytes) -> bytes:
    """One call of AES-256-GCM with a random nonce: the least that any message costs."""
    return AEAD.encrypt(os.urandom(12), plaintext, None)


def unseal(nonce: bytes, sealed: bytes) -> bytes:
    """One call of AES-256-GCM the other way."""
    return AEAD.decrypt(nonce, sealed, None)


def encrypt(plaintext: bytes) -> bytes:
    """Cobblestone-256 in one shot."""
    encryptor = Cobblestone256Encryptor(KEY, CONTEXT)
    return encryptor.update(plaintext) + encryptor.finalize()


def decrypt(sealed: bytes) -> bytes:
    """Cobblestone-256 in one shot."""
    decryptor = Cobblestone256Decryptor(KEY, CONTEXT)
    return decryptor.update(sealed) + decryptor.finalize()


def encrypt_file(source: str, target: str) -> None:
    """Read, `update_into`, write, with the buffers of `kmsbridge.cipher.files`."""
    _loop(
        Cobblestone256Encryptor(KEY, CONTEXT), source, target, STEP, chunked.BodyEncryptor.output_size(STEP)
    )


def decrypt_file(source: str, target: str) -> None:
    """The way back, likewise."""
    _loop(
        Cobblestone256Decryptor(KEY, CONTEXT),
        source,
        target,
        ENCRYPTED_STEP,
        chunked.BodyDecryptor.output_size(ENCRYPTED_STEP),
    )


def _loop(
    cipher: Cobblestone256Encryptor | Cobblestone256Decryptor, source: str, target: str, step: int, room: int
) -> None:
    taken, given = memoryview(bytearray(step)), memoryview(bytearray(room))
    with open(source, "rb", buffering=0) as reader, open(target, "wb", buffering=0) as writer:
        while count := reader.readinto(taken):
            _write_all(writer, given[: cipher.update_into(taken[:count], given)])
        _write_all(writer, memoryview(cipher.finalize()))
        os.fsync(writer.fileno())


def _write_all(writer: BinaryIO, view: memoryview) -> None:
    while view:
        view = view[writer.write(view) :]
