"""Headers: encoding and parsing. No ciphers, no I/O. `docs/reference/format.md` specifies them.

Parsing is strict and total: every byte string is either a message with exactly one meaning, or a
`MessageError`.
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
"""Bytes of every header before what depends on its kind."""
MIN_BODY: Final = 72
MAX_HEADER: Final = 0xFFFF
MAX_KEY_ID: Final = 1024
MAX_KEY_VERSION: Final = 255
MAX_WRAPPED: Final = 16384
DATA_KEY_ID: Final = 32
PAD_TO: Final = 512

# The outer measures of a body, which is all that this module knows of it.
_BODY_HEAD, _BODY_CHUNK, _BODY_TAG = 56, 16400, 16

_FIXED = struct.Struct(">4sBBH")


class Recipient(NamedTuple):
    """A key's id and version, and what it wrapped."""

    key_id: str
    key_version: str
    wrapped: bytes

    def __repr__(self) -> str:
        return f"Recipient({self.key_id!r}, {self.key_version!r}, {len(self.wrapped)} bytes)"


class Header(NamedTuple):
    """A parsed header. `length` (H) includes padding: the body starts there."""

    kind: Kind
    length: int
    recipients: tuple[Recipient, ...] = ()
    data_key_id: bytes = b""

    @property
    def layout(self) -> Layout:
        """What messages of this kind hold."""
        return LAYOUTS[self.kind]

    @property
    def has_recipients_data_key(self) -> bool:
        """Whether the recipients wrapped a data key."""
        return self.layout.data_key_in is DataKeyIn.RECIPIENTS

    @property
    def is_direct(self) -> bool:
        """Whether the recipient wrapped the payload itself."""
        return self.layout.data_key_in is DataKeyIn.NOWHERE

    @property
    def padding(self) -> int:
        """How many zero bytes stand between the last recipient and the body."""
        return self.length - len(_content(self)) - FIXED

    def encode(self) -> bytes:
        """The header's bytes, padded to `length`."""
        content = _content(self)
        return _FIXED.pack(MAGIC, VERSION, self.kind, self.length) + content.ljust(self.length - FIXED, b"\0")


def inline(recipients: tuple[Recipient, ...], *, kind: Kind = Kind.INLINE, padded: bool = False) -> Header:
    """A header for these recipients, without padding, or padded as files are.

    Raises `LimitExceeded` where they are more than 16 or the header would pass 65535 bytes, and
    `ConfigError` where two have one key id, or a direct message would have several.
    """
    if not 1 <= len(recipients) <= MAX_RECIPIENTS:
        raise LimitExceeded(f"{len(recipients)} recipients", remedy=f"encrypt to 1 to {MAX_RECIPIENTS} keys")
    if LAYOUTS[kind].most_recipients == 1:
        check_direct(len(recipients))
    if len({recipient.key_id for recipient in recipients}) != len(recipients):
        raise ConfigError("two of the keys to encrypt to are the same key", remedy="keep one of them")
    bare = FIXED + len(_content(Header(kind, 0, recipients)))
    length = -(-(bare + PAD_TO) // PAD_TO) * PAD_TO if padded else bare
    if length > MAX_HEADER:
        raise LimitExceeded(
            f"a header of {length} bytes", remedy=f"encrypt to fewer keys: {MAX_HEADER} bytes is the limit"
        )
    return Header(kind, length, recipients)


def check_direct(keys: int) -> None:
    """Raises `ConfigError` for a number of keys that no direct message is for."""
    if keys != 1:
        raise ConfigError(
            f"a direct message is for one key, and there are {keys} to encrypt to",
            remedy="use a profile with one key in encrypt_to",
        )


def header_length(start: bytes | memoryview) -> int:
    """H of a message of which the first 8 bytes are given; checks magic, version and kind.

    Raises `MalformedMessage` or `UnsupportedMessage`.
    """
    if len(start) < FIXED:
        raise MalformedMessage(f"{len(start)} bytes are too few for a message", remedy=_not_ours(start))
    magic, version, kind, length = _FIXED.unpack_from(start)
    if magic != MAGIC:
        raise MalformedMessage("this does not begin as a message does", remedy=_not_ours(start))
    if version == 0:
        raise MalformedMessage("version 0 does not exist")
    if version != VERSION:
        raise UnsupportedMessage(f"a message of version {version}", remedy="upgrade kmsbridge to read it")
    if kind not in LAYOUTS:
        raise UnsupportedMessage(f"a message of kind {kind}", remedy="upgrade kmsbridge to read it")
    return int(length)


def parse_header(data: bytes | memoryview) -> Header:
    """The header that `data` begins with; `data` holds at least all of it.

    Raises `MalformedMessage` or `UnsupportedMessage`.
    """
    length = header_length(data)
    if not FIXED < length <= len(data):
        raise MalformedMessage(
            f"the header claims {length} bytes of {len(data)}", remedy="the message was cut short"
        )
    kind = Kind(data[5])
    cursor = _Cursor(bytes(data[FIXED:length]))
    most = LAYOUTS[kind].most_recipients
    recipients = _parse_recipients(cursor, most) if most else ()
    data_key_id = b"" if most else cursor.take(DATA_KEY_ID)
    _check_padding(kind, cursor.rest())
    return Header(kind, length, recipients, data_key_id)


def parse(message: bytes | memoryview) -> Header:
    """The header of a whole message, with the length of its body checked.

    Raises `MalformedMessage` or `UnsupportedMessage`.
    """
    header = parse_header(message)
    check_body_length(header.kind, len(message) - header.length)
    return header


def check_body_length(kind: Kind, length: int) -> None:
    """Raises `MalformedMessage` for a body that is too short, or there where none may be."""
    if LAYOUTS[kind].body is BodyFormat.NONE:
        if length:
            raise MalformedMessage(f"{length} bytes after a direct message")
    elif length < MIN_BODY:
        raise MalformedMessage(
            f"a body of {length} bytes is shorter than an empty one", remedy="the message was cut short"
        )


def plaintext_length(body_length: int) -> int | None:
    """How long the plaintext of a body of this length is; None where no body has this length."""
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
    return b"".join(parts)


def _check_length(name: str, value: bytes, least: int, most: int) -> None:
    if not least <= len(value) <= most:
        raise LimitExceeded(
            f"a {name} of {len(value)} bytes", remedy=f"the message format holds {least} to {most}"
        )


def _check_padding(kind: Kind, padding: bytes) -> None:
    if padding and not LAYOUTS[kind].padded:
        raise MalformedMessage("a direct message has no padding")
    if padding.strip(b"\0"):
        raise MalformedMessage("the header's padding is not zero")


def _parse_recipients(cursor: _Cursor, most: int) -> tuple[Recipient, ...]:
    count = cursor.take(1)[0]
    if not 1 <= count <= most:
        allowed = f"a message has 1 to {most}" if most > 1 else "a direct message has one"
        raise MalformedMessage(f"{count} recipients; {allowed}")
    recipients = tuple(_parse_recipient(cursor) for _ in range(count))
    if len({recipient.key_id for recipient in recipients}) != count:
        raise MalformedMessage("two recipients have one key id")
    return recipients


def _parse_recipient(cursor: _Cursor) -> Recipient:
    key_id = cursor.text(cursor.number(2), "key id")
    version = cursor.text(cursor.number(1), "key version")
    wrapped = cursor.take(cursor.number(2))
    if not 1 <= len(key_id.encode()) <= MAX_KEY_ID:
        raise MalformedMessage(f"a key id of {len(key_id)} characters")
    scheme, colon, name = key_id.partition(":")
    if not (scheme and colon and name):
        raise MalformedMessage("a key id without a scheme")
    if not 1 <= len(wrapped) <= MAX_WRAPPED:
        raise MalformedMessage(f"a wrapped key of {len(wrapped)} bytes")
    return Recipient(key_id, version, wrapped)


class _Cursor:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, length: int) -> bytes:
        taken = self._data[self._at : self._at + length]
        if len(taken) != length:
            raise MalformedMessage("the header ends inside a field", remedy="the message was cut short")
        self._at += length
        return taken

    def number(self, length: int) -> int:
        return int.from_bytes(self.take(length), "big")

    def text(self, length: int, name: str) -> str:
        try:
            return self.take(length).decode()
        except UnicodeDecodeError:
            raise MalformedMessage(f"a {name} is not UTF-8") from None

    def rest(self) -> bytes:
        return self._data[self._at :]


def _not_ours(start: bytes | memoryview) -> str:
    if bytes(start[:4]) == ARMOR_PREFIX[:4].encode():
        return "this is the armored form: use decrypt_text, or decrypt --armor"
    return "it is not a message of kmsbridge, or was cut short or changed"
