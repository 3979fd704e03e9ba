"""Reads the headers of messages. This needs no key and shows no secret."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import BinaryIO, Final

from kmsbridge import atomic, journal
from kmsbridge import message as wire
from kmsbridge.atomic import PathLike
from kmsbridge.streams import read_into

_STEP: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class RecipientInfo:
    """A key that can decrypt the message. `wrapped_length` is the length of the wrapped key in bytes."""

    key_id: str
    key_version: str
    wrapped_length: int


@dataclass(frozen=True, slots=True)
class MessageInfo:
    """The content of a message's header. It is not authenticated: only decrypting verifies a message.

    `kind` says where the data key is: `inline` (with the recipients), `stored` (in a key store) or `direct` (there is
    none); `body` is `chunked`, `compact` or `none`. `commitment`, to the data key and the context, is empty where the
    header has none; messages with the same one have the same data key. Lengths are in bytes. `plaintext_length` is
    None for a direct message, of which only its key service knows the payload's length, and for a body that was cut
    short.
    """

    version: int
    kind: str
    recipients: tuple[RecipientInfo, ...]
    data_key_id: str
    header_length: int
    padding: int
    body_length: int
    plaintext_length: int | None
    body: str
    commitment: str


def inspect(message: bytes | bytearray | memoryview | str) -> MessageInfo:
    """Return the content of a message's header. A `str` is an armored message. Raises `MessageError`."""
    data = wire.dearmor(message) if isinstance(message, str) else memoryview(message).cast("B")
    return _info(wire.parse(data), len(data))


def inspect_file(path: PathLike) -> MessageInfo:
    """Return the content of the header of the message in a file. Only the header is read.

    Raises `MessageError` or `OSError`.
    """
    with atomic.open_regular(path) as file:
        return _info(journal.header_of(path, file), file.seek(0, os.SEEK_END))


def inspect_stream(reader: BinaryIO) -> MessageInfo:
    """Return the content of the header of the message in a stream, which is read to its end.

    Raises `MessageError` or `OSError`.
    """
    start, size, buffer = b"", 0, memoryview(bytearray(_STEP))
    while count := read_into(reader, buffer):
        start += buffer[: min(count, wire.MAX_HEADER - len(start))]
        size += count
    header = wire.parse_header(start)
    wire.check_body_length(header.kind, size - header.length)
    return _info(header, size)


def _info(header: wire.Header, size: int) -> MessageInfo:
    body_length = size - header.length
    return MessageInfo(
        version=wire.VERSION,
        kind=header.layout.data_key_in.value,
        recipients=tuple(
            RecipientInfo(recipient.key_id, recipient.key_version, len(recipient.wrapped))
            for recipient in header.recipients
        ),
        data_key_id=header.data_key_id.hex(),
        header_length=header.length,
        padding=header.padding,
        body_length=body_length,
        plaintext_length=wire.plaintext_length(header.kind, body_length),
        body=header.layout.body.value,
        commitment=header.commitment.hex(),
    )
