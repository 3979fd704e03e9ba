"""Decrypts whole messages that have a data key."""

from __future__ import annotations

from kmsbridge import message as wire
from kmsbridge.cipher import direct
from kmsbridge.cipher.arguments import Buffer
from kmsbridge.datakeys import Pairs
from kmsbridge.datakeys.decryption import DecryptionKeys, Known
from kmsbridge.errors import AuthenticationError


def decrypt_by_alias(keys: DecryptionKeys, message: bytes, context: Pairs, aad: Buffer) -> bytes | None:
    """The plaintext, if the data key that last opened a message with this header opens this one too."""
    start = int.from_bytes(message[6:8], "big")
    size = len(message)
    entry = keys.at_hand(message[:start], context, size)
    if entry is None or size - start < wire.MIN_BODY:
        return None
    try:
        return entry.decrypt(memoryview(message)[start:], aad)
    except AuthenticationError:
        return None  # another of the message's recipients may hold the data key that fits


def decrypt_at_hand(keys: DecryptionKeys, message: bytes, context: Pairs, aad: Buffer) -> bytes | None:
    """The plaintext, if a data key at hand opens it: no call, no waiting. Raises `MessageError`."""
    header = wire.parse(message)
    if not header.has_recipients_data_key:
        return None
    sealed = memoryview(message)[header.length :]

    return keys.opened_at_hand(
        header, context, len(message), lambda key: key.decrypt(sealed, aad), packed=message[: header.length]
    )


def decrypt_anew(
    keys: DecryptionKeys,
    message: bytes,
    context: Pairs,
    aad: Buffer,
    header: wire.Header | None = None,
    known: Known | None = None,
) -> bytes:
    """The plaintext of a message whose data key is not at hand; `header` and `known` save finding them again."""
    if header is None:
        header = wire.parse(message)
    else:
        wire.check_body_length(header.kind, len(message) - header.length)
    if header.is_direct:
        return direct.decrypt(keys, header, context, aad)
    sealed = memoryview(message)[header.length :]

    packed = message[: header.length]
    return keys.opened(
        header, context, len(message), lambda key: key.decrypt(sealed, aad), packed=packed, known=known
    )
