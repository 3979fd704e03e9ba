"""A file from which a message is read while it is encrypted."""

from __future__ import annotations

import io
import sys

from kmsbridge.cipher.binary_file import BinaryFile, name_of
from kmsbridge.cipher.unfinished import UnfinishedMessage
from kmsbridge.errors import discreet
from kmsbridge.streams import Readable, read_into


class EncryptingReader(BinaryFile):
    """A read-only binary file of the message that holds what a source gives, encrypted as it is read.

    It cannot seek, and does not know its length beforehand. Iterating gives blocks, not lines. Once a read
    failed, as where the source raises or the cipher was closed, every later one raises, so that a message of
    which a part is missing never ends as if it were complete.

    Closing it leaves the source open. Threads may share it. In a forked child each read raises `ClosedError`.
    """

    def __init__(self, source: Readable, message: UnfinishedMessage) -> None:
        super().__init__(name_of(source), "rb")
        self._source, self._message = source, message
        self._encrypted = memoryview(message.header)
        """The encrypted bytes that the next read returns first."""
        self._at_end = False

    def readable(self) -> bool:
        """Return True."""
        return True

    @discreet
    def read(self, size: int | None = -1, /) -> bytes:
        """Return `size` bytes of the message, fewer only at its end; all that is left where it is None or
        negative.

        Raises what the source raises, `ClosedError` once the cipher is closed, and `OSError` after an earlier
        read failed.
        """
        self._check_not_closed()
        left = sys.maxsize if size is None or size < 0 else size
        data = io.BytesIO()  # joining parts would copy all of it once more
        with self._message.turn():
            while left and (part := self._take(left)):
                left -= data.write(part)
        return data.getvalue()

    @discreet
    def read1(self, size: int = -1, /) -> bytes:
        """Return some bytes of the message, at most `size` where it is not negative; b"" at its end."""
        self._check_not_closed()
        with self._message.turn():
            return bytes(self._take(sys.maxsize if size < 0 else size)) if size else b""

    def close(self) -> None:
        """Forget the key; the source stays open."""
        if not self.closed:
            self._message.give_up()
        super().close()

    def __next__(self) -> bytes:
        block = self.read1()
        if not block:
            raise StopIteration
        return block

    def _take(self, most: int) -> memoryview:
        """Return at most `most` bytes, valid until the next call; none at the end."""
        while not self._encrypted and not self._at_end:
            self._encrypt_more()
        part, self._encrypted = self._encrypted[:most], self._encrypted[most:]
        return part

    def _encrypt_more(self) -> None:
        count = read_into(self._source, self._message.step.plain)
        if count:
            self._encrypted = self._message.encrypt(count)
        else:
            self._encrypted = memoryview(self._message.finalize())
            self._at_end = True
