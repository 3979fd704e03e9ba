"""A second reader of messages, written from docs/reference/format.md and nothing else.

It shares no line with the library, so that the vectors say what the document says and not only what
the library does. It is for the tests: it makes no effort to be fast or to hide keys.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import struct
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

CHUNK = 16384
DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
WHITE_SPACE = " \t\n\v\f\r"


class RefusedError(Exception):
    """Not read; the text is the outcome's name."""


@dataclass
class Message:
    """The parts of a message."""

    kind: int
    header_length: int
    recipients: list[tuple[str, str, bytes]]
    data_key_id: bytes
    padding: int
    body: bytes


def need(condition, outcome="malformed-message"):
    """Refuse unless `condition` holds."""
    if not condition:
        raise RefusedError(outcome)


# --- "Armor" ------------------------------------------------------------------------------------------


def dearmor(text):
    """The bytes of an armored message."""
    text = text.strip(WHITE_SPACE)
    need(text.startswith("kmsb1_"))
    number = bits = 0
    data = bytearray()
    for sign in text[6:]:
        need(sign in DIGITS)
        number, bits = number << 6 | DIGITS.index(sign), bits + 6
        if bits >= 8:
            bits -= 8
            data.append(number >> bits)
            number &= (1 << bits) - 1
    need(bits < 6 and number == 0)
    return bytes(data)


# --- "Header" -----------------------------------------------------------------------------------------


class Fields:
    """The header's bytes from offset 8 to H, taken from front to back."""

    def __init__(self, data):
        self.data = data

    def take(self, length):
        need(length <= len(self.data))
        taken, self.data = self.data[:length], self.data[length:]
        return taken

    def number(self, length):
        return int.from_bytes(self.take(length), "big")

    def text(self, length):
        try:
            return self.take(length).decode("utf-8")
        except UnicodeDecodeError:
            raise RefusedError("malformed-message") from None


def parse(message):
    """The parts of `message`."""
    need(len(message) >= 8)
    magic, version, kind, header_length = struct.unpack(">4sBBH", message[:8])
    need(magic == b"KMSB")
    need(version != 0)
    need(version == 1, "unsupported-message")
    need(kind <= 2, "unsupported-message")
    need(8 < header_length <= len(message))
    fields = Fields(message[8:header_length])
    data_key_id, recipients = b"", []
    if kind == 1:
        data_key_id = fields.take(32)
    else:
        recipients = parse_recipients(fields, 1 if kind == 2 else 16)
    need(not fields.data if kind == 2 else not any(fields.data))
    body = message[header_length:]
    need(not body if kind == 2 else len(body) >= 72)
    return Message(kind, header_length, recipients, data_key_id, len(fields.data), body)


def parse_recipients(fields, most):
    """The list of recipients, of which there may be `most`."""
    count = fields.number(1)
    need(1 <= count <= most)
    recipients = []
    for _ in range(count):
        key_id = fields.text(fields.number(2))
        version = fields.text(fields.number(1))
        wrapped = fields.take(fields.number(2))
        scheme, _, name = key_id.partition(":")
        need(scheme and name and len(key_id.encode()) <= 1024)
        need(1 <= len(wrapped) <= 16384)
        recipients.append((key_id, version, wrapped))
    need(len({key_id for key_id, _, _ in recipients}) == count)
    return recipients


# --- "Encryption context" -----------------------------------------------------------------------------


def canonical(pairs):
    """C, for pairs that were checked or are reserved."""
    data = struct.pack(">H", len(pairs))
    for name, value in sorted((name.encode(), value.encode()) for name, value in pairs.items()):
        data += struct.pack(">H", len(name)) + name + struct.pack(">H", len(value)) + value
    return data


def checked(pairs):
    """The user's pairs, if they may be used."""
    pairs = pairs or {}
    need(len(pairs) <= 64, "limit-exceeded")
    for name, value in pairs.items():
        need(name and value and not name.startswith("kmsbridge"), "invalid-context")
        need(len(name.encode()) <= 4096 and len(value.encode()) <= 4096, "limit-exceeded")
    need(len(canonical(pairs)) <= 4096, "limit-exceeded")
    return pairs


# --- "Body" -------------------------------------------------------------------------------------------


def derive(key, salt, context):
    """The AES key, the base nonce and the commitment: HKDF-Expand of RFC 5869 with SHA-512."""
    info = b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\0" + salt + context
    okm = block = b""
    for number in (1, 2):
        block = hmac.digest(key, block + info + bytes((number,)), "sha512")
        okm += block
    return okm[:32], okm[32:44], okm[44:76]


def nonce(base, number):
    """The nonce of chunk `number`."""
    return (int.from_bytes(base, "big") ^ number).to_bytes(12, "big")


def open_body(key, context, body):
    """The plaintext of a body."""
    key, base, commitment = derive(key, body[:24], context)
    need(hmac.compare_digest(commitment, body[24:56]), "authentication-error")
    chunks = body[56:]
    plaintext = b""
    number = 0
    while True:
        sealed, chunks = chunks[: CHUNK + 16], chunks[CHUNK + 16 :]
        try:
            opened = AESGCM(key).decrypt(nonce(base, number), sealed, None)
        except InvalidTag:
            raise RefusedError("authentication-error") from None
        plaintext += opened
        number += 1
        if len(opened) < CHUNK:
            need(not chunks, "authentication-error")
            return plaintext


# --- "What the key service is given", "The local driver" ----------------------------------------------


def unwrap(key_file, recipient, pairs):
    """What the recipient's key wrapped, bound to `pairs`."""
    key_id, version, wrapped = recipient
    key = next(key for name, key in key_file["keys"].items() if key_id == f"local:{name}@{key['id']}")
    need(key["state"] == "enabled", "key-disabled")
    need(version in key["versions"], "key-version-not-found")
    material = base64.b64decode(key["versions"][version]["material"])
    need(len(wrapped) >= 72, "authentication-error")
    return open_body(material, b"kmsbridge-local/v1\0" + canonical(pairs), wrapped)


def try_each(key_file, names, message, pairs):
    """What was wrapped, by the first of the keys `names` that can unwrap it."""
    ids = [f"local:{name}@{key_file['keys'][name]['id']}" for name in names]
    ours = [each for key_id in ids for each in message.recipients if each[0] == key_id]
    need(ours, "no-matching-key")
    outcomes = []
    for recipient in ours:
        try:
            return unwrap(key_file, recipient, pairs)
        except RefusedError as refusal:
            outcomes.append(str(refusal))
    raise RefusedError(min(outcomes, key=lambda outcome: outcome == "authentication-error"))


def decrypt(message, key_file, names, pairs, aad):
    """The plaintext, with those keys of a key file that `names` lists."""
    parts = parse(message)
    pairs = checked(pairs)
    need(len(aad) <= 1048576, "limit-exceeded")
    if parts.kind == 2:
        reserved = {"kmsbridge": "direct"}
        if aad:
            digest = base64.urlsafe_b64encode(hashlib.sha256(aad).digest())
            reserved["kmsbridge-aad"] = digest.decode().rstrip("=")
        return try_each(key_file, names, parts, {**pairs, **reserved})
    need(parts.kind == 0, "unsupported-message")
    data_key = try_each(key_file, names, parts, {**pairs, "kmsbridge": "dek"})
    need(len(data_key) == 32, "authentication-error")
    context = canonical(pairs)
    return open_body(
        data_key, b"kmsbridge/v1\0" + struct.pack(">I", len(context)) + context + aad, parts.body
    )
