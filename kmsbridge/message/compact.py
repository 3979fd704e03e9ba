"""Bodies of small payloads: one AES-GCM call each, with keys that are derived once for many of them.

A data key and a context give an XAES key, and a commitment to both, which the header holds. All bodies of one writer
have the same nonce prefix, so that XAES's own derivation is done once for them too.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping, Sequence
from os import urandom
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from kmsbridge.errors import AuthenticationError
from kmsbridge.message import xaes
from kmsbridge.message.header import MAX_COMPACT_BODY, too_long
from kmsbridge.secret import Secret

DATA_KEY: Final = 32
PREFIX: Final = xaes.PREFIX
NONCE: Final = xaes.NONCE
AES_NONCE: Final = NONCE - PREFIX
MAX_PAYLOAD: Final = MAX_COMPACT_BODY - xaes.NONCE - xaes.TAG
PER_PREFIX: Final = 2**24
"""The most messages under one prefix: the rest of a nonce, 12 random bytes, repeats among so many of them with a
probability of 2^-49."""

LARGE: Final = 4096
"""The length from which a view of a message costs less than a copy of its body."""

_DOMAIN: Final = b"kmsbridge/v1/compact\x00"

Buffer = bytes | bytearray | memoryview
BodyCipher = AESGCM
"""The cipher of the bodies whose nonces have one prefix: `xaes.derive` makes it of the XAES key and the prefix."""


def derive(data_key: bytes, canonical: bytes) -> tuple[bytes, bytes]:
    """Return the XAES key of a data key and a context, and the commitment to both. 32 bytes each.

    `canonical` is the context's canonical form. Raises `ValueError` for a data key that is not 32 bytes long: HMAC
    pads shorter ones, so that several would give the same commitment.
    """
    if len(data_key) != DATA_KEY:
        raise ValueError("data key must be 32 bytes")
    # HKDF-Expand (RFC 5869, section 2.3) of one block, which is one HMAC.
    info = b"".join((_DOMAIN, len(canonical).to_bytes(4, "big"), canonical, b"\x01"))
    derived = hmac.digest(data_key, info, "sha512")
    _overwritten = Secret(derived)
    return derived[: xaes.KEY], derived[xaes.KEY :]


def encrypt(cipher: BodyCipher, start: bytes, plaintext: Buffer, aad: Buffer) -> bytes:
    """Return a whole message. `start` is its header and the prefix of `cipher`; the plaintext has 65,536 bytes at most."""
    nonce = urandom(AES_NONCE)
    return b"".join((start, nonce, cipher.encrypt(nonce, plaintext, aad)))


def encrypt_many(
    cipher: BodyCipher, start: bytes, plaintexts: Sequence[Buffer], aads: Sequence[Buffer]
) -> list[bytes]:
    """Return a message for each plaintext, as `encrypt` does. All nonces are drawn at once, which costs less."""
    nonces = urandom(AES_NONCE * len(plaintexts))
    messages = []
    for number, (plaintext, aad) in enumerate(zip(plaintexts, aads, strict=True)):
        nonce = nonces[number * AES_NONCE : (number + 1) * AES_NONCE]
        messages.append(b"".join((start, nonce, cipher.encrypt(nonce, plaintext, aad))))
    return messages


def decrypt(cipher: BodyCipher, message: bytes, start: int, aad: Buffer) -> bytes:
    """Return the plaintext of the body that begins at `start` of `message`, with the cipher of its prefix.

    Raises `AuthenticationError`, also for a length that no compact body has.
    """
    length, nonce, end = len(message), start + PREFIX, start + NONCE
    if length > LARGE:
        if length - start > MAX_COMPACT_BODY:
            raise AuthenticationError
        encrypted: Buffer = memoryview(message)[end:]
    else:
        encrypted = message[end:]
    try:
        return cipher.decrypt(message[nonce:end], encrypted, aad)
    except (InvalidTag, ValueError):  # `ValueError` for a nonce that is cut short
        raise AuthenticationError from None


def decrypt_many(
    ciphers: Mapping[bytes, BodyCipher], messages: Sequence[bytes], start: int, aads: Sequence[Buffer]
) -> list[bytes | None]:
    """Return the plaintext of each body that begins at `start` of its message, by the cipher of its prefix.

    None is in the place of one that is not authentic, or whose cipher is not among `ciphers`.
    """
    nonce, end = start + PREFIX, start + NONCE
    plaintexts: list[bytes | None] = []
    for message, aad in zip(messages, aads, strict=True):
        plaintext, cipher = None, ciphers.get(message[start:nonce])
        if cipher is not None and len(message) - start <= MAX_COMPACT_BODY:
            try:
                plaintext = cipher.decrypt(message[nonce:end], message[end:], aad)
            except (InvalidTag, ValueError):
                plaintext = None
        plaintexts.append(plaintext)
    return plaintexts


class BodyDecryptor:
    """Decrypts a body that arrives in parts. It holds all of it, which is small, and verifies it at the end.

    It has the methods of `chunked.BodyDecryptor`. `decrypt` returns the plaintext of a whole body.
    """

    def __init__(self, decrypt: Callable[[bytes], bytes]) -> None:
        self._decrypt = decrypt
        self._body = bytearray()

    @staticmethod
    def output_size(_length: int) -> int:
        """Return 0: there is no plaintext before the end."""
        return 0

    def update(self, data: Buffer) -> bytes:
        """Take the next part of the body; return no plaintext yet.

        Raises `MalformedMessage` where the body is longer than a compact one can be.
        """
        if len(self._body) + len(data) > MAX_COMPACT_BODY:
            raise too_long()
        self._body += data
        return b""

    def update_into(self, data: Buffer, _buffer: bytearray | memoryview) -> int:
        """Take the next part of the body, as `update` does; return 0."""
        self.update(data)
        return 0

    def finalize(self) -> bytes:
        """Return the plaintext, all of it verified. Raises `AuthenticationError`."""
        return self._decrypt(bytes(self._body))
