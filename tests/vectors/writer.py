"""A second writer of messages, like `reader` written from docs/reference/format.md and nothing else.

It takes every salt, nonce and data key from its caller, so that vectors can be made again, and it can
write messages that are wrong: a length that lies, a part of another message.
"""

from __future__ import annotations

import base64
import struct

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.vectors.reader import (
    CHUNK,
    DIRECT,
    INLINE,
    INLINE_COMPACT,
    bound,
    canonical,
    derive,
    derive_compact,
    derive_xaes,
    nonce,
    open_material,
)


def entry(key_id, version, wrapped):
    """One recipient."""
    key_id, version = (each.encode() if isinstance(each, str) else each for each in (key_id, version))
    return (
        struct.pack(">H", len(key_id))
        + key_id
        + struct.pack(">B", len(version))
        + version
        + struct.pack(">H", len(wrapped))
        + wrapped
    )


def listing(*recipients, count=None):
    """The recipients with their number; `count` lies about it."""
    return bytes((len(recipients) if count is None else count,)) + b"".join(recipients)


def head(kind, content, *, magic=b"KMSB", version=1, length=None, padding=b""):
    """A header; `length` lies about H."""
    content += padding
    return (
        struct.pack(">4sBBH", magic, version, kind, 8 + len(content) if length is None else length) + content
    )


def seal(key, context, plaintext, salt):
    """A chunked body."""
    aes, base, commitment = derive(key, salt, context)
    chunks = [plaintext[at : at + CHUNK] for at in range(0, len(plaintext) + 1, CHUNK)]
    sealed = [AESGCM(aes).encrypt(nonce(base, number), chunk, None) for number, chunk in enumerate(chunks)]
    return salt + commitment + b"".join(sealed)


def seal_compact(key, plaintext, aad, n):
    """A compact body: XAES-256-GCM with the nonce `n`."""
    return n + AESGCM(derive_xaes(key, n[:12])).encrypt(n[12:], plaintext, aad)


def wrap(key_file, key_id, version, payload, pairs, salt, passphrase=None):
    """What a key of a key file makes of `payload`."""
    name = key_id.removeprefix("local:").partition("@")[0]
    material = open_material(key_file, name, version, passphrase)
    return seal(material, b"kmsbridge-local/v1\0" + canonical(pairs), payload, salt)


def chunked(plaintext, pairs, aad, recipients, data_key, salt):
    """A message of kind 0."""
    return head(INLINE, listing(*recipients)) + seal(data_key, bound(pairs, aad), plaintext, salt)


def compact(plaintext, pairs, aad, recipients, data_key, n):
    """A message of kind 3."""
    key, commitment = derive_compact(data_key, pairs)
    return head(INLINE_COMPACT, listing(*recipients) + commitment) + seal_compact(key, plaintext, aad, n)


def direct(recipient):
    """A message of kind 2, whose recipient has the payload."""
    return head(DIRECT, listing(recipient))


def armored(message):
    """The text form."""
    return "kmsb1_" + base64.urlsafe_b64encode(message).decode().rstrip("=")
