"""What a message says of itself to anyone: no key is needed, and nothing secret is shown."""

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
    """A key that can open the message; `wrapped_length` is in bytes."""

    key_id: str
    key_version: str
    wrapped_length: int


@dataclass(frozen=True, slots=True)
class MessageInfo:
    """What a message's header says. Nothing of it is authenticated: only decrypting verifies.

    `kind` is inline, stored or direct; lengths are in bytes. `plaintext_length` is None for a
    direct message, whose payload only the provider can measure.
    """

    version: int
    kind: str
    recipients: tuple[RecipientInfo, ...]
    data_key_id: str
    header_length: int
    padding: int
    body_length: int
    plaintext_length: int | None


def inspect(message: bytes | bytearray | memoryview | str) -> MessageInfo:
    """Read a message's header; `str` is taken for the armored form. Raises `MessageError`."""
    data = wire.dearmor(message) if isinstance(message, str) else memoryview(message).cast("B")
    return _info(wire.parse(data), len(data))


def inspect_file(path: PathLike) -> MessageInfo:
    """The same of a file, of which only the header is read. Raises `MessageError` or `OSError`."""
    with atomic.open_regular(path) as file:
        return _info(journal.header_of(path, file), file.seek(0, os.SEEK_END))


def inspect_stream(reader: BinaryIO) -> MessageInfo:
    """The same of a stream, which is read to its end. Raises `MessageError` or `OSError`."""
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
        kind=header.kind.name.lower(),
        recipients=tuple(
            RecipientInfo(each.key_id, each.key_version, len(each.wrapped)) for each in header.recipients
        ),
        data_key_id=header.data_key_id.hex(),
        header_length=header.length,
        padding=header.padding,
        body_length=body_length,
        plaintext_length=None if header.is_direct else wire.plaintext_length(body_length),
    )
