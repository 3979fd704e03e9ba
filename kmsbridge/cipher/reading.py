"""A message as a seekable file."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from kmsbridge import atomic, journal
from kmsbridge import message as wire
from kmsbridge.atomic import PathLike
from kmsbridge.cipher.binary_file import BinaryFile, name_of
from kmsbridge.errors import discreet
from kmsbridge.message import cobblestone

if TYPE_CHECKING:
    from kmsbridge.message.chunk_reader import ReadAt


class Chunks(Protocol):
    """The plaintext of a message in chunks of 16 KiB, the last one shorter."""

    size: int

    def chunk(self, number: int) -> bytes: ...


ChunksOf = Callable[[wire.Header, "ReadAt", int], Chunks]
"""(header, how to read the body, the body's length) -> the plaintext's chunks."""


class MessageReader(BinaryFile):
    """A read-only, seekable binary file of a message's plaintext.

    Each chunk that a read touches is verified before any of it is returned; a changed one raises
    `AuthenticationError`, and leaves the position where it was. Once the cipher that opened it is closed,
    each use raises `ClosedError`. Like other files it has one position: share it between threads with a lock.
    """

    def __init__(
        self,
        chunks: Chunks,
        close: Callable[[], None],
        check_cipher: Callable[[], None] = lambda: None,
        name: str = "",
    ) -> None:
        super().__init__(name, "rb")
        self._chunks = chunks
        self._close = close
        self._check_cipher = check_cipher
        self._at = 0
        self._number, self._chunk = -1, b""

    @property
    def size(self) -> int:
        """The length of the plaintext in bytes."""
        return self._chunks.size

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position in bytes."""
        self._check_open()
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move, and return the new position; one beyond the end is allowed, and reads nothing."""
        self._check_open()
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size}.get(whence)
        if start is None or start + offset < 0:
            raise ValueError(f"cannot seek to {offset} from {whence}")
        self._at = start + offset
        return self._at

    @discreet
    def read(self, size: int | None = -1, /) -> bytes:
        """Return up to `size` bytes; to the end where it is None or negative."""
        self._check_open()
        rest = max(self.size - self._at, 0)
        return self._take(rest if size is None or size < 0 else min(size, rest))

    @discreet
    def read1(self, size: int = -1, /) -> bytes:
        """Return up to `size` bytes of one chunk."""
        self._check_open()
        part = self._rest_of_chunk(self._at)
        part = part if size < 0 else part[:size]
        self._at += len(part)
        return part

    @discreet
    def readline(self, size: int | None = -1, /) -> bytes:
        """Return what is left of a line, or `size` bytes of it."""
        # The inherited one can give more than `size` where a line crosses from one chunk to the next.
        self._check_open()
        return self._take_line(self.size if size is None or size < 0 else size)

    @discreet
    def readinto(self, buffer: Any, /) -> int:
        """Fill `buffer` with what is verified, all at once; return how many bytes there were."""
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    @discreet
    def readinto1(self, buffer: Any, /) -> int:
        """Fill `buffer` with bytes of one chunk; return how many there were."""
        view = memoryview(buffer).cast("B")
        data = self.read1(len(view))
        view[: len(data)] = data
        return len(data)

    @discreet
    def peek(self, size: int = 0, /) -> bytes:
        """Return what is left of the chunk at the position, which stays."""
        self._check_open()
        return self._rest_of_chunk(self._at)

    def close(self) -> None:
        """Forget the key, and close the file if it was opened here."""
        if not self.closed:
            self._chunks, self._chunk = _NoChunks(), b""
            self._close()
        super().close()

    def _take(self, wanted: int) -> bytes:
        parts, end = [], self._at + wanted
        at = self._at
        while at < end:
            parts.append(self._rest_of_chunk(at)[: end - at])
            at += len(parts[-1])
        data = b"".join(parts)
        self._at = at
        return data

    def _take_line(self, wanted: int) -> bytes:
        parts: list[bytes] = []
        at, end = self._at, self._at + wanted
        while at < end and not (parts and parts[-1].endswith(b"\n")):
            rest = self._rest_of_chunk(at)[: end - at]
            if not rest:
                break
            parts.append(rest[: rest.find(b"\n") + 1] or rest)
            at += len(parts[-1])
        line = b"".join(parts)
        self._at = at
        return line

    def _rest_of_chunk(self, at: int) -> bytes:
        if at >= self.size:
            return b""
        number, skip = divmod(at, cobblestone.CHUNK)
        if number != self._number:
            self._chunk, self._number = self._chunks.chunk(number), number
        return self._chunk[skip:]

    def _check_open(self) -> None:
        self._check_not_closed()
        self._check_cipher()


class _NoChunks:
    size = 0

    def chunk(self, number: int) -> bytes:
        return b""


def open_message(
    source: PathLike | BinaryIO, chunks_of: ChunksOf, check_cipher: Callable[[], None]
) -> MessageReader:
    """Return a reader of the message in the file at a path, which it closes, or in a seekable file, which
    stays open.

    `check_cipher` raises `ClosedError` once the cipher is closed.
    """
    if isinstance(source, (str, bytes, os.PathLike)):
        file = atomic.open_regular(source)
        try:
            chunks = chunks_in(file, journal.header_of(source, file), chunks_of)
        except BaseException:
            file.close()
            raise
        return MessageReader(chunks, file.close, check_cipher, os.fsdecode(source))
    if not hasattr(source, "seek") or not source.seekable():
        raise TypeError("open needs a path or a seekable binary file: use decrypt_stream for streams")
    chunks = chunks_in(source, journal.read_header(source), chunks_of)
    return MessageReader(chunks, lambda: None, check_cipher, name_of(source))


def chunks_in(file: BinaryIO, header: wire.Header, chunks_of: ChunksOf) -> Chunks:
    """Return the chunks of the message in an open file. Reading them moves the file's position."""

    def read_at(offset: int, length: int) -> bytes:
        file.seek(header.length + offset)
        return journal.read_exactly(file, length)

    return chunks_of(header, read_at, file.seek(0, os.SEEK_END) - header.length)
