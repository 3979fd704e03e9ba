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
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

CHUNK = 16384
INLINE, STORED, DIRECT, INLINE_COMPACT, STORED_COMPACT = range(5)
COMPACT = (INLINE_COMPACT, STORED_COMPACT)
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
    commitment: bytes
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
    need(kind <= 4, "unsupported-message")
    need(8 < header_length <= len(message))
    fields = Fields(message[8:header_length])
    data_key_id, recipients, commitment = b"", [], b""
    if kind in (STORED, STORED_COMPACT):
        data_key_id = fields.take(32)
    else:
        recipients = parse_recipients(fields, 1 if kind == DIRECT else 16)
    if kind == INLINE_COMPACT:
        commitment = fields.take(32)
    need(not any(fields.data) if kind in (INLINE, STORED) else not fields.data)
    body = message[header_length:]
    if kind == DIRECT:
        need(not body)
    else:
        need(40 <= len(body) <= 65576 if kind in COMPACT else len(body) >= 72)
    return Message(kind, header_length, recipients, commitment, data_key_id, len(fields.data), body)


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
        need(not any("\ud800" <= sign <= "\udfff" for sign in name + value), "invalid-context")
    longest = max((len(text.encode()) for pair in pairs.items() for text in pair), default=0)
    need(longest <= 65535 and len(canonical(pairs)) <= 4096, "limit-exceeded")
    return pairs


# --- "Chunked body" -----------------------------------------------------------------------------------


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


def bound(pairs, aad):
    """The context of the body."""
    context = canonical(pairs)
    return b"kmsbridge/v1\0" + struct.pack(">I", len(context)) + context + aad


def open_body(key, context, body):
    """The plaintext of a chunked body."""
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


# --- "Compact body" -----------------------------------------------------------------------------------


def derive_compact(data_key, pairs):
    """The XAES key and the commitment."""
    context = canonical(pairs)
    info = b"kmsbridge/v1/compact\0" + struct.pack(">I", len(context)) + context
    okm = hmac.digest(data_key, info + b"\1", "sha512")
    return okm[:32], okm[32:]


def derive_xaes(key, prefix):
    """The AES key of XAES-256-GCM, for the first 12 bytes of a nonce."""
    encryptor = Cipher(algorithms.AES256(key), modes.ECB()).encryptor()
    zeros = int.from_bytes(encryptor.update(bytes(16)), "big")
    subkey = zeros << 1 & (1 << 128) - 1 ^ 0x87 * (zeros >> 127)
    blocks = (int.from_bytes(bytes((0, number, 0x58, 0)) + prefix, "big") ^ subkey for number in (1, 2))
    return b"".join(encryptor.update(block.to_bytes(16, "big")) for block in blocks)


def open_compact(data_key, expected, pairs, aad, body):
    """The plaintext of a compact body; `expected` is the commitment or the id in the header."""
    key, commitment = derive_compact(data_key, pairs)
    need(hmac.compare_digest(commitment, expected), "authentication-error")
    try:
        return AESGCM(derive_xaes(key, body[:12])).decrypt(body[12:24], body[24:], aad)
    except InvalidTag:
        raise RefusedError("authentication-error") from None


# --- "The local driver" -------------------------------------------------------------------------------


def passphrase_key(passphrase, protection):
    """P: the key that the passphrase of a key file gives."""
    kdf = Argon2id(
        salt=base64.b64decode(protection["salt"]),
        length=32,
        iterations=protection["iterations"],
        lanes=protection["lanes"],
        memory_cost=protection["memory_kib"],
    )
    return kdf.derive(passphrase.encode())


def open_material(key_file, name, version, passphrase):
    """The 32 bytes of a version of a key."""
    key = key_file["keys"][name]
    material = base64.b64decode(key["versions"][version]["material"])
    if "protection" not in key_file:
        return material
    sealing_key = passphrase_key(passphrase, key_file["protection"])
    check = base64.b64decode(key_file["protection"]["check"])
    try:
        open_body(sealing_key, b"kmsbridge-local/v1 check", check)
    except RefusedError:
        raise RefusedError("wrong-passphrase") from None
    place = "\0".join(("kmsbridge-local/v1 material", name, key["id"], version))
    return open_body(sealing_key, place.encode(), material)


def unwrap(key_file, passphrase, recipient, pairs):
    """What the recipient's key wrapped, bound to `pairs`."""
    key_id, version, wrapped = recipient
    name = key_id.removeprefix("local:").partition("@")[0]
    key = key_file["keys"][name]
    need(key["state"] == "enabled", "key-disabled")
    need(version in key["versions"], "key-version-not-found")
    material = open_material(key_file, name, version, passphrase)
    need(len(wrapped) >= 72, "authentication-error")
    return open_body(material, b"kmsbridge-local/v1\0" + canonical(pairs), wrapped)


# --- "What is checked first", "What the key service is given" -----------------------------------------


def decrypt(message, key_file, names, pairs, aad, *, passphrase=None, store=None, environment=None):
    """The plaintext, with those keys of a key file that `names` lists; `store` has stored data keys by id.

    `environment` is the reader's own, or None.
    """
    parts = parse(message)
    pairs = checked(pairs)
    need(len(aad) <= 1048576, "limit-exceeded")
    if parts.kind in (STORED, STORED_COMPACT):
        need(store is not None and parts.data_key_id in store, "unsupported-message")
        return open_stored(parts, store[parts.data_key_id], pairs, aad)
    ids = [f"local:{name}@{key_file['keys'][name]['id']}" for name in names]
    ours = [each for key_id in ids for each in parts.recipients if each[0] == key_id]
    need(ours, "no-matching-key")
    failures = []
    for recipient in ours:
        try:
            reserved = direct_pairs(aad) if parts.kind == DIRECT else {"kmsbridge": "dek"}
            if environment is not None:
                reserved["kmsbridge-environment"] = environment
            unwrapped = unwrap(key_file, passphrase, recipient, {**pairs, **reserved})
            return unwrapped if parts.kind == DIRECT else open_inline(parts, unwrapped, pairs, aad)
        except RefusedError as refusal:
            failures.append(str(refusal))
    raise RefusedError(min(failures, key=lambda failure: failure == "authentication-error"))


def direct_pairs(aad):
    """The reserved pairs of a direct message."""
    if not aad:
        return {"kmsbridge": "direct"}
    digest = base64.urlsafe_b64encode(hashlib.sha256(aad).digest())
    return {"kmsbridge": "direct", "kmsbridge-aad": digest.decode().rstrip("=")}


def open_inline(parts, data_key, pairs, aad):
    """The plaintext of a message of kind 0 or 3, if this is its data key."""
    need(len(data_key) == 32, "authentication-error")
    if parts.kind == INLINE_COMPACT:
        return open_compact(data_key, parts.commitment, pairs, aad, parts.body)
    return open_body(data_key, bound(pairs, aad), parts.body)


def open_stored(parts, data_key, pairs, aad):
    """The plaintext of a message of kind 1 or 4, with the data key that the store has under its id."""
    need(len(data_key) == 32, "authentication-error")
    if parts.kind == STORED_COMPACT:
        return open_compact(data_key, parts.data_key_id, pairs, aad, parts.body)
    _, commitment = derive_compact(data_key, pairs)
    need(hmac.compare_digest(commitment, parts.data_key_id), "authentication-error")
    return open_body(data_key, bound(pairs, aad), parts.body)
