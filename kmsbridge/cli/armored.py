"""Reads and writes the armored form of messages of any length in constant memory."""

from __future__ import annotations

import io
from typing import Any, BinaryIO, Final, cast

from kmsbridge import message as wire
from kmsbridge.cli.streams import Input
from kmsbridge.errors import MalformedMessage
from kmsbridge.streams import write_all

_STEP: Final = 256 * 1024
_START: Final = wire.ARMOR_PREFIX[:4].encode()


def detect(source: Input) -> tuple[BinaryIO, bool]:
    """Return a reader of the binary message in `source`, and whether the message is armored.

    The first bytes decide, since the two forms begin differently.
    """
    start = white_space = b""
    while len(start) < len(_START) and (more := source.read(_STEP)):
        text = start + more
        start = text.lstrip()
        white_space = white_space or text[: len(text) - len(start)][:1]
    armored = start.startswith(_START)
    # White space before an armored message is ignored. Before a binary one it is kept, so that it is refused.
    source.unread(start if armored else white_space + start)
    return cast(BinaryIO, ArmorReader(source) if armored else source), armored


class ArmorReader(io.RawIOBase):
    """The binary message in an armored text. Reading raises `MalformedMessage` for invalid characters."""

    def __init__(self, text: Input) -> None:
        super().__init__()
        self._text = text
        self._plain = memoryview(b"")
        self._rest = ""
        self._started = self._complete = self._ended = False

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Read some bytes of the message into `buffer`; return their number, 0 at the end."""
        while not self._plain and not self._ended:
            self._plain = memoryview(self._step(self._text.read(_STEP) or b""))
        count = min(len(buffer), len(self._plain))
        buffer[:count], self._plain = self._plain[:count], self._plain[count:]
        return count

    def _step(self, text: bytes) -> bytes:
        self._ended = not text
        # Bytes that are not ASCII become a character that the decoder refuses.
        self._rest += text.decode("ascii", "replace")
        if not self._started and not self._start():
            return b""
        digits = self._rest.rstrip(wire.WHITE_SPACE)
        if (self._complete and digits) or len(digits.split()) > 1:
            raise MalformedMessage(
                "the armored text has white space or line breaks in it", remedy="join it to one line"
            )
        # White space after the digits is dropped, however much there is: nothing else may follow it.
        self._complete = self._complete or self._ended or len(digits) < len(self._rest)
        take = len(digits) if self._complete else len(digits) // 4 * 4
        part, self._rest = digits[:take], digits[take:]
        return wire.dearmor(wire.ARMOR_PREFIX + part)

    def _start(self) -> bool:
        self._rest = self._rest.lstrip(wire.WHITE_SPACE)
        if len(self._rest) < len(wire.ARMOR_PREFIX) and not self._ended:
            return False
        if not self._rest.startswith(wire.ARMOR_PREFIX):
            wire.dearmor(self._rest)  # raises
        self._rest, self._started = self._rest.removeprefix(wire.ARMOR_PREFIX), True
        return True


class ArmorWriter:
    """Writes a message in armored form, on one line. `end` completes it."""

    def __init__(self, writer: BinaryIO) -> None:
        self._writer = writer
        self._rest = b""
        self._prefix = wire.ARMOR_PREFIX

    def write(self, data: bytes | memoryview) -> int:
        """Write as much as fills whole groups of four characters, and keep the rest; return the length of `data`."""
        whole = self._rest + bytes(data)
        take = len(whole) // 3 * 3
        self._rest = whole[take:]
        self._put(whole[:take])
        return len(data)

    def end(self) -> None:
        """Write the rest and a newline."""
        self._put(self._rest)
        write_all(self._writer, b"\n")

    def _put(self, data: bytes) -> None:
        text = self._prefix + wire.armor(data).removeprefix(wire.ARMOR_PREFIX)
        self._prefix = ""
        write_all(self._writer, text.encode())
