"""A file that encrypts what is written to it."""

from __future__ import annotations

import contextlib
import os
import warnings
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Self

from kmsbridge import atomic
from kmsbridge import message as wire
from kmsbridge.atomic import PathLike
from kmsbridge.cipher.binary_file import BinaryFile, name_of
from kmsbridge.cipher.unfinished import STEP, UnfinishedMessage
from kmsbridge.errors import ReentrantCall, discreet
from kmsbridge.message import cobblestone
from kmsbridge.streams import BytesLike, Writable, write_all


class MessageWriter(BinaryFile):
    """A binary file, written from front to back, that encrypts what is written to it.

    `close` completes the message, as the end of a `with` block does. Where the block ends with an exception,
    where any write failed, where the cipher was closed, and where the file is garbage collected without having
    been closed, the message is never completed: for a path nothing appears, and a file that was passed in
    holds a message that every reader refuses, since its end is missing.

    Inside a `with` block of this file, closing it, which wrappers such as `io.TextIOWrapper` do, only ends
    writing: whether the message is completed is decided where the block ends.

    Threads may share it; each write is whole. In a forked child each use raises `ClosedError`.
    """

    def __init__(self, target: _Target, message: UnfinishedMessage, header: bytes, name: str) -> None:
        super().__init__(name, "wb")
        self._target, self._message = target, message
        self._filled = 0
        self._closed = self._in_block = self._collected = self._abandoned = False
        message.when_given_up = target.discard
        try:
            with message.turn():
                write_all(target.file, header)
        except BaseException:
            self.abandon()
            raise

    @property
    def closed(self) -> bool:
        """Whether writing has ended."""
        return self._closed

    def writable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return how many bytes were written, before encryption."""
        self._check_not_closed()
        return self._message.size + self._filled

    @discreet
    def write(self, data: BytesLike, /) -> int:
        """Encrypt all of `data`; return its length in bytes.

        Each chunk of 16 KiB is written to the target once it is complete. Raises what the target raises,
        `ClosedError` once the cipher is closed, and `OSError` after an earlier write failed.
        """
        self._check_not_closed()
        view = memoryview(data).cast("B")
        with self._message.turn():
            plain, at = self._message.step.plain, 0
            while at < len(view):
                part = view[at : at + STEP - self._filled]
                plain[self._filled : self._filled + len(part)] = part
                self._filled += len(part)
                at += len(part)
                self._write_chunks()
        return len(view)

    @discreet
    def flush(self) -> None:
        """Flush the target. Up to 16 KiB stay here, since a chunk is encrypted as a whole."""
        self._check_not_closed()
        with self._message.turn():
            flush = getattr(self._target.file, "flush", None)
            if flush is not None:
                flush()

    @discreet
    def close(self) -> None:
        """Complete the message; may be repeated. In a `with` block of this file, only end writing.

        Raises what `write` raises; then the message is not completed.
        """
        if self._in_block:
            self._closed = True
        elif self._collected:
            self.abandon()
        elif not self._closed:
            self._complete()

    def abandon(self) -> None:
        """End writing without completing the message; does nothing once it is complete."""
        self._closed = self._abandoned = True
        if not self._target.ended:
            self._message.give_up()

    def __enter__(self) -> Self:
        self._check_not_closed()
        self._in_block = True
        return self

    @discreet
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._in_block = False
        if kind is None:
            self._complete()
        else:
            self.abandon()

    def __del__(self) -> None:
        target = getattr(self, "_target", None)  # none where it could not be made
        if target is not None and not target.ended:
            self.abandon()
            if not self._message.is_of_parent:
                self._warn(self)

    def _dealloc_warn(self, source: object) -> None:
        """Take note that a wrapper, which closes this file next, is closed by the garbage collector alone.

        Python's own wrappers call this, as they do for a raw file.
        """
        self._collected = True
        if not (self._target.ended or self._in_block):
            self._warn(source)

    def _warn(self, source: object) -> None:
        place = f" for {self.name!r}" if self.name else ""
        warnings.warn(
            f"the encrypted file{place} was not closed, so its message was not completed: use it with `with`",
            ResourceWarning,
            stacklevel=3,
            source=source,
        )

    def _write_chunks(self) -> None:
        """Encrypt the complete chunks in the buffer, and move what is left to its start."""
        full = self._filled // cobblestone.CHUNK * cobblestone.CHUNK
        if full:
            write_all(self._target.file, self._message.encrypt(full))
            plain = self._message.step.plain
            plain[: self._filled - full] = plain[full : self._filled]
            self._filled -= full

    def _complete(self) -> None:
        if self._abandoned:
            return
        try:
            with self._message.turn():
                self._closed = True
                if not self._target.ended:
                    last = bytes(self._message.encrypt(self._filled))
                    write_all(self._target.file, last + self._message.finalize())
                    self._target.complete()
        except ReentrantCall:
            raise  # what a signal handler interrupted goes on
        except BaseException:
            self.abandon()
            raise


class _Target:
    """The file that a message is written to: a temporary one that takes its path's place when the message is
    complete, or one that was passed in.
    """

    def __init__(self, block: AbstractContextManager[Writable]) -> None:
        self._block = block
        self.file = block.__enter__()
        self.ended = False

    def complete(self) -> None:
        """Let a path appear."""
        self._block.__exit__(None, None, None)
        self.ended = True

    def discard(self) -> None:
        """Let nothing appear at a path; does nothing once it is complete."""
        if not self.ended:
            self.ended = True
            with contextlib.suppress(OSError):
                self._block.__exit__(_Abandoned, _Abandoned(), None)


class _Abandoned(Exception):
    """Raised into the block of a target that must not appear, to end it."""


def create_message(target: PathLike | Writable, message: UnfinishedMessage) -> MessageWriter:
    """Return a file that encrypts what is written to it into `target`.

    A path appears whole or not at all, with room in the header to rewrap it in place. A file that is passed in
    is written as it comes, and left open.
    """
    if isinstance(target, (str, bytes, os.PathLike)):
        header = wire.inline(wire.parse_header(message.header).recipients, padded=True)
        path = os.fsdecode(target)
        return MessageWriter(_Target(atomic.replacing(path)), message, header.encode(), path)
    if not hasattr(target, "write"):
        raise TypeError(f"create needs a path or a writable binary file, not {type(target).__name__}")
    return MessageWriter(_Target(contextlib.nullcontext(target)), message, message.header, name_of(target))
