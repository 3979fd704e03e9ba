"""Direct messages: the key service wraps the payload itself, and there is no data key."""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING

from kmsbridge.cipher.aad import Aad, as_aad
from kmsbridge.cipher.arguments import Buffer, as_bytes
from kmsbridge.context import EncryptionContext
from kmsbridge.datakeys import EncryptionKeys, Pairs
from kmsbridge.errors import MalformedMessage
from kmsbridge.message import Header, Kind, chunked, inline
from kmsbridge.secret import Secret

if TYPE_CHECKING:
    from kmsbridge.datakeys.decryption import DecryptionKeys


def encrypt(keys: EncryptionKeys, plaintext: Buffer, context: Pairs, aad: Aad) -> bytes:
    """Return a direct message. Raises `LimitExceeded` beyond the smallest limit among the keys' providers."""
    secret = Secret(as_bytes(plaintext, "plaintext", "encrypt_text"))
    keys.check_open()
    recipients = keys.wrap(secret, bound_context(context, aad), keys.deadline())
    return inline(recipients, kind=Kind.DIRECT).encode()


def decrypt(keys: DecryptionKeys, header: Header, context: Pairs, aad: Aad) -> bytes:
    """Return the payload of a direct message."""
    return keys.unwrapping.payload(header, bound_context(context, aad), keys.deadline())


def bound_context(context: Pairs, aad: Aad) -> EncryptionContext:
    """Return the context that the key service binds a direct payload to: it holds the aad by its hash."""
    aad = as_aad(aad)
    pairs = EncryptionContext.of(context)
    if not len(aad):
        return pairs.with_reserved(kmsbridge="direct")
    digest = base64.urlsafe_b64encode(hashlib.sha256(aad).digest()).rstrip(b"=").decode()
    return pairs.with_reserved(kmsbridge="direct", kmsbridge_aad=digest)


class DirectDecryptor:
    """Stands in for `chunked.BodyDecryptor` where the payload is in the header: nothing may follow."""

    def __init__(self, payload: bytes) -> None:
        self._payload = Secret(payload)

    @staticmethod
    def output_size(length: int) -> int:
        """Return as much as `chunked.BodyDecryptor` would need."""
        return chunked.BodyDecryptor.output_size(length)

    def update(self, sealed: Buffer) -> bytes:
        """Raise `MalformedMessage`: a direct message has no body."""
        raise MalformedMessage("bytes after a direct message")

    def update_into(self, sealed: Buffer, buffer: bytearray | memoryview) -> int:
        """Raise `MalformedMessage`: a direct message has no body."""
        raise MalformedMessage("bytes after a direct message")

    def finalize(self) -> bytes:
        """Return the payload."""
        return self._payload.reveal()
