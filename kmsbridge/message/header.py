"""Encodes and parses headers, without ciphers and without I/O. `docs/reference/format.md` specifies them.

Parsing is strict: any byte string is either parsed, with exactly one meaning, or raises a `MessageError`.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from kmsbridge.errors import ConfigError, LimitExceeded, MalformedMessage, UnsupportedMessage
from kmsbridge.message.armor import ARMOR_PREFIX
from kmsbridge.message.kinds import LAYOUTS, MAX_RECIPIENTS, BodyFormat, DataKeyIn, Kind, Layout

MAGIC: Final = b"KMSB"
VERSION: Final = 1
FIXED: Final = 8
"""The number of bytes that headers of all kinds begin with."""
MIN_BODY: Final = 72
MIN_COMPACT_BODY: Final = 40
MAX_COMPACT_BODY: Final = 65_536 + MIN_COMPACT_BODY
MAX_HEADER: Final = 0xFFFF
MAX_KEY_ID: Final = 1024
MAX_KEY_VERSION: Final = 255
MAX_WRAPPED: Final = 16384
DATA_KEY_ID: Final = 32
COMMITMENT: Final = 32
PAD_TO: Final = 512

# The lengths of a body's parts, which are all that this module needs to know of it.
_BODY_HEAD, _BODY_CHUNK, _BODY_TAG = 56, 16400, 16

_FIXED = struct.Struct(">4sBBH")

_CUT_SHORT: Final = "restore the message: it was cut short"
_CHANGED: Final = "restore the message: its header was changed"


class Recipient(NamedTuple):
    """One entry of a header: a key's id and version, and the data key (or payload) wrapped by it."""

    key_id: str
    key_version: str
    wrapped: bytes

    def __repr__(self) -> str:
        return f"Recipient({self.key_id!r}, {self.key_version!r}, {len(self.wrapped)} bytes)"


class Header(NamedTuple):
    """A parsed header. `length` is in bytes and includes the padding, so the body starts there.

    `commitment`, to the data key and the context, is empty where the recipients hold the data key of a chunked body,
    which has a commitment of its own.
    """

    kind: Kind
    length: int
    recipients: tuple[Recipient, ...] = ()
    data_key_id: bytes = b""
    commitment: bytes = b""

    @property
    def layout(self) -> Layout:
        """The layout of messages of this kind."""
        return LAYOUTS[self.kind]

    @property
    def has_recipients_data_key(self) -> bool:
        """Whether the recipients hold a wrapped data key."""
        return self.layout.data_key_in is DataKeyIn.RECIPIENTS

    @property
    def is_direct(self) -> bool:
        """Whether the recipient holds the wrapped payload itself, without a data key."""
        return self.layout.data_key_in is DataKeyIn.NOWHERE

    @property
    def padding(self) -> int:
        """The number of zero bytes between the header's content and the body."""
        return self.length - len(_content(self)) - FIXED

    def encode(self) -> bytes:
        """Return the header's bytes, padded to `length`."""
        content = _content(self)
        return _FIXED.pack(MAGIC, VERSION, self.kind, self.length) + content.ljust(self.length - FIXED, b"\0")


def inline(
    recipients: tuple[Recipient, ...],
    *,
    kind: Kind = Kind.INLINE,
    commitment: bytes = b"",
    padded: bool = False,
) -> Header:
    """Return a header for these recipients, without padding, or `padded` like the headers of files.

    `commitment` is what a header of this kind holds of its data key: 32 bytes where the body is compact, else none.

    Raises `LimitExceeded` for more than 16 recipients or a header of more than 65535 bytes, and `ConfigError`
    where two recipients have the same key id, or a direct message would have several.
    """
    if not 1 <= len(recipients) <= MAX_RECIPIENTS:
        raise LimitExceeded(
            f"a message cannot have {len(recipients)} recipients",
            remedy=f"encrypt to 1 to {MAX_RECIPIENTS} keys",
        )
    if LAYOUTS[kind].most_recipients == 1:
        check_direct(len(recipients))
    if len({recipient.key_id for recipient in recipients}) != len(recipients):
        raise ConfigError(
            "two of the keys in encrypt_to are the same key", remedy="remove one of them from encrypt_to"
        )
    bare = FIXED + len(_content(Header(kind, 0, recipients, commitment=commitment)))
    length = -(-(bare + PAD_TO) // PAD_TO) * PAD_TO if padded else bare
    if length > MAX_HEADER:
        raise LimitExceeded(
            f"the header would have {length} bytes, more than {MAX_HEADER}", remedy="encrypt to fewer keys"
        )
    return Header(kind, length, recipients, commitment=commitment)


def check_direct(keys: int) -> None:
    """Raise `ConfigError` unless `keys` is 1, the number of keys that a direct message is encrypted to."""
    if keys != 1:
        raise ConfigError(
            f"a direct message is encrypted to one key, but encrypt_to names {keys}",
            remedy="use a profile with one key in encrypt_to",
        )


def header_length(start: bytes | memoryview) -> int:
    """Return the header's length in bytes, given the first 8 bytes of a message; check magic, version and kind.

    Raises `MalformedMessage` or `UnsupportedMessage`.
    """
    if len(start) < FIXED:
        raise MalformedMessage(f"{len(start)} bytes are too few for a message", remedy=_not_ours(start))
    magic, version, kind, length = _FIXED.unpack_from(start)
    if magic != MAGIC:
        raise MalformedMessage("the data does not begin like a message", remedy=_not_ours(start))
    if version == 0:
        raise MalformedMessage(
            "the message has version 0, which does not exist", remedy="restore it; it was changed"
        )
    if version != VERSION:
        raise UnsupportedMessage(f"the message has version {version}", remedy="upgrade kmsbridge to read it")
    if kind not in LAYOUTS:
        raise UnsupportedMessage(
            f"the message is of the unknown kind {kind}", remedy="upgrade kmsbridge to read it"
        )
    return int(length)


def parse_header(data: bytes | memoryview) -> Header:
    """Parse and return the header that `data` begins with. `data` must hold the whole header.

    Raises `MalformedMessage` or `UnsupportedMessage`.
    """
    length = header_length(data)
    if not FIXED < length <= len(data):
        raise MalformedMessage(
            f"the header's length is {length} bytes, but there are {len(data)}", remedy=_CUT_SHORT
        )
    kind = Kind(data[5])
    cursor = _Cursor(bytes(data[FIXED:length]))
    most = LAYOUTS[kind].most_recipients
    recipients = _parse_recipients(cursor, most) if most else ()
    data_key_id = b"" if most else cursor.take(DATA_KEY_ID)
    commitment = cursor.take(COMMITMENT) if _holds_commitment(kind) else b""
    _check_padding(kind, cursor.rest())
    return Header(kind, length, recipients, data_key_id, commitment)


def parse(message: bytes | memoryview) -> Header:
    """Parse and return the header of a whole message, and check the length of its body.

    Raises `MalformedMessage` or `UnsupportedMessage`.
    """
    header = parse_header(message)
    check_body_length(header.kind, len(message) - header.length)
    return header


def min_body(kind: Kind) -> int:
    """Return the length in bytes of the body of an empty plaintext: 0 for a kind without a body."""
    return {BodyFormat.CHUNKED: MIN_BODY, BodyFormat.COMPACT: MIN_COMPACT_BODY}.get(LAYOUTS[kind].body, 0)


def start_of_body(kind: Kind) -> int:
    """Return how many bytes of a body show whether its length is allowed: a compact one is read whole."""
    if LAYOUTS[kind].body is BodyFormat.COMPACT:
        return MAX_COMPACT_BODY + 1
    return min_body(kind) or 1


def check_body_length(kind: Kind, length: int) -> None:
    """Raise `MalformedMessage` for a body that is too short or too long for its format, or for one in a direct
    message.
    """
    body = LAYOUTS[kind].body
    if body is BodyFormat.NONE and length:
        raise MalformedMessage(
            f"there are {length} bytes after a direct message", remedy="pass the message alone"
        )
    if length < min_body(kind):
        raise MalformedMessage(
            f"the body has {length} bytes, fewer than the body of an empty plaintext", remedy=_CUT_SHORT
        )
    if body is BodyFormat.COMPACT and length > MAX_COMPACT_BODY:
        raise too_long()


def too_long() -> MalformedMessage:
    """Return the error for a compact body that is too long."""
    return MalformedMessage(
        f"the body has more than {MAX_COMPACT_BODY} bytes, the most that a compact body has",
        remedy="restore the message: it was changed, or something was appended",
    )


def plaintext_length(kind: Kind, body_length: int) -> int | None:
    """Return the length of the plaintext of a body of this length; None where only the key service knows it, or no
    body has this length.
    """
    if LAYOUTS[kind].body is BodyFormat.NONE:
        return None
    if LAYOUTS[kind].body is BodyFormat.COMPACT:
        return body_length - MIN_COMPACT_BODY if body_length >= MIN_COMPACT_BODY else None
    full_chunks, rest = divmod(body_length - _BODY_HEAD, _BODY_CHUNK)
    if rest < _BODY_TAG:
        return None
    return full_chunks * (_BODY_CHUNK - _BODY_TAG) + rest - _BODY_TAG


def _content(header: Header) -> bytes:
    if header.layout.data_key_in is DataKeyIn.STORE:
        _check_length("data key id", header.data_key_id, DATA_KEY_ID, DATA_KEY_ID)
        return header.data_key_id
    parts = [bytes((len(header.recipients),))]
    for recipient in header.recipients:
        key_id, version = recipient.key_id.encode(), recipient.key_version.encode()
        _check_length("key id", key_id, 1, MAX_KEY_ID)
        _check_length("key version", version, 0, MAX_KEY_VERSION)
        _check_length("wrapped key", recipient.wrapped, 1, MAX_WRAPPED)
        parts += (
            len(key_id).to_bytes(2, "big"),
            key_id,
            len(version).to_bytes(1, "big"),
            version,
            len(recipient.wrapped).to_bytes(2, "big"),
            recipient.wrapped,
        )
    if _holds_commitment(header.kind):
        _check_length("commitment", header.commitment, COMMITMENT, COMMITMENT)
        parts.append(header.commitment)
    return b"".join(parts)


def _holds_commitment(kind: Kind) -> bool:
    layout = LAYOUTS[kind]
    return layout.data_key_in is DataKeyIn.RECIPIENTS and layout.body is BodyFormat.COMPACT


def _check_length(name: str, value: bytes, least: int, most: int) -> None:
    if not least <= len(value) <= most:
        raise LimitExceeded(
            f"a {name} of {len(value)} bytes does not fit into a message",
            remedy=f"use {least} to {most} bytes",
        )


def _check_padding(kind: Kind, padding: bytes) -> None:
    if padding and not LAYOUTS[kind].padded:
        raise MalformedMessage(
            "the header has padding, which this kind of message never has", remedy=_CHANGED
        )
    if padding.strip(b"\0"):
        raise MalformedMessage("the padding of the header is not zero", remedy=_CHANGED)


def _parse_recipients(cursor: _Cursor, most: int) -> tuple[Recipient, ...]:
    count = cursor.take(1)[0]
    if not 1 <= count <= most:
        what, allowed = ("message", f"1 to {most}") if most > 1 else ("direct message", "one")
        raise MalformedMessage(f"the {what} has {count} recipients instead of {allowed}", remedy=_CHANGED)
    recipients = tuple(_parse_recipient(cursor) for _ in range(count))
    if len({recipient.key_id for recipient in recipients}) != count:
        raise MalformedMessage("two recipients have the same key id", remedy=_CHANGED)
    return recipients


def _parse_recipient(cursor: _Cursor) -> Recipient:
    key_id = cursor.text(cursor.number(2), "key id")
    version = cursor.text(cursor.number(1), "key version")
    wrapped = cursor.take(cursor.number(2))
    if not 1 <= len(key_id.encode()) <= MAX_KEY_ID:
        raise MalformedMessage(f"the header has a key id of {len(key_id)} characters", remedy=_CHANGED)
    scheme, colon, name = key_id.partition(":")
    if not (scheme and colon and name):
        raise MalformedMessage("the header has a key id without a scheme", remedy=_CHANGED)
    if not 1 <= len(wrapped) <= MAX_WRAPPED:
        raise MalformedMessage(f"the header has a wrapped key of {len(wrapped)} bytes", remedy=_CHANGED)
    return Recipient(key_id, version, wrapped)


class _Cursor:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, length: int) -> bytes:
        taken = self._data[self._at : self._at + length]
        if len(taken) != length:
            raise MalformedMessage("the header ends inside a field", remedy=_CUT_SHORT)
        self._at += length
        return taken

    def number(self, length: int) -> int:
        return int.from_bytes(self.take(length), "big")

    def text(self, length: int, name: str) -> str:
        try:
            return self.take(length).decode()
        except UnicodeDecodeError:
            raise MalformedMessage(f"a {name} in the header is not UTF-8", remedy=_CHANGED) from None

    def rest(self) -> bytes:
        return self._data[self._at :]


def _not_ours(start: bytes | memoryview) -> str:
    if bytes(start[:4]) == ARMOR_PREFIX[:4].encode():
        return "this is an armored message: use decrypt_text, or decrypt --armor"
    return "check where it comes from: it is not a message of kmsbridge, or was cut short or changed"
