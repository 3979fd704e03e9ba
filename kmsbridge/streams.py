"""Reading from and writing to the streams of an application, and places in regular files.

An application may pass any object with a `read` or a `write`, and these differ in what they return. They receive
bytes that they may keep, their results are checked, and the error for an invalid result says which side is
at fault.
"""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Awaitable
from typing import Any, BinaryIO, Final, NoReturn, Protocol, TypeGuard

_PIECE: Final = 64 * 1024
"""Bytes to write at a time to a writer that did not take all at once."""
_WRITE_MUST_RETURN: Final = "its write must return None or the number of bytes it took"


class BytesLike(Protocol):
    """What `memoryview` takes, in the eyes of type checkers: `collections.abc.Buffer`, which is of Python 3.12."""

    def __buffer__(self, flags: int, /) -> memoryview: ...


class Readable(Protocol):
    """Anything with a `read` that returns up to so many bytes, and `b""` at the end."""

    def read(self, size: int, /) -> bytes | None: ...


class Writable(Protocol):
    """Anything with a `write` that takes bytes."""

    def write(self, data: bytes, /) -> object: ...


def write_all(writer: Any, data: Any) -> None:
    """Write all of the bytes-like `data`, in as many writes as it takes.

    An `io.FileIO` gets `data` itself; every other writer gets a copy in `bytes`, which it may keep. A non-blocking
    writer is waited for through its file descriptor. Raises `OSError` where the writer takes nothing,
    `BlockingIOError` for a non-blocking writer without a file descriptor, and `TypeError` for an asynchronous writer.
    """
    if type(writer) is io.FileIO:
        view = memoryview(data)
        while view:
            view = view[_write(writer, view) :]
        return
    own = bytes(data)
    at = _write(writer, own) if own else 0
    while at < len(own):
        at += _write(writer, own[at : at + _PIECE])


def read_into(reader: Any, buffer: memoryview) -> int:
    """Read once into the start of `buffer`; return the number of bytes read, 0 at the end.

    A non-blocking reader is waited for through its file descriptor. Raises `TypeError` for a text or asynchronous
    reader, `ValueError` where it returns more than fits into `buffer`, and `BlockingIOError` for a non-blocking
    reader without a file descriptor.
    """
    while (count := _read(reader, buffer)) is None:
        _wait(reader, "reader")
    return count


def read_at(file: BinaryIO, buffer: memoryview, offset: int) -> int:
    """Read from `offset` of a regular file into `buffer`; return the number of bytes, fewer only at the file's end.

    Neither uses nor moves the file's position, so threads may share the file.
    """
    done = 0
    while done < len(buffer):
        if hasattr(os, "preadv"):
            count = os.preadv(file.fileno(), [buffer[done:]], offset + done)
        else:
            data = os.pread(file.fileno(), len(buffer) - done, offset + done)
            count = len(data)
            buffer[done : done + count] = data
        if not count:
            break
        done += count
    return done


def write_at(file: BinaryIO, data: memoryview, offset: int) -> None:
    """Write all of `data` to a regular file from `offset` on, as `read_at` reads."""
    done = 0
    while done < len(data):
        done += count_written(os.pwrite(file.fileno(), data[done:], offset + done), len(data) - done)


def count_written(result: object, length: int) -> int:
    """Return how many of `length` bytes a writer took, given what its `write` returned.

    None and True mean all of them. Raises `TypeError` or `OSError` for an invalid result.
    """
    if result is None or result is True:
        return length
    if is_awaitable(result):
        _refuse_awaitable("writer", result)
    if not isinstance(result, int):
        raise TypeError(f"the writer returned {type(result).__name__}; {_WRITE_MUST_RETURN}")
    if not 0 < result <= length:
        raise OSError(
            errno.EIO, f"the writer returned {int(result)} for {length} bytes; {_WRITE_MUST_RETURN}"
        )
    return result


def checked_read(data: object, length: int) -> memoryview:
    """Return the bytes that a reader's `read(length)` returned, as a view.

    Raises `TypeError` for anything but bytes, `ValueError` for more than `length` of them.
    """
    if isinstance(data, str):
        raise TypeError("the reader returned text; open it in binary mode")
    if is_awaitable(data):
        _refuse_awaitable("reader", data)
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise TypeError(f"the reader returned {type(data).__name__}; its read must return bytes")
    view = memoryview(data).cast("B")
    if len(view) > length:
        raise ValueError(
            f"the reader returned {len(view)} bytes; its read was asked for {length} and must not return more"
        )
    return view


def is_awaitable(result: object) -> TypeGuard[Awaitable[Any]]:
    """Return whether `result` is a coroutine or another object that must be awaited."""
    return hasattr(type(result), "__await__")


def _write(writer: Any, part: bytes | memoryview) -> int:
    """Write once; return the number of bytes taken, 0 after waiting for a writer that was not ready."""
    try:
        result = writer.write(part)
    except BlockingIOError as error:
        count = getattr(error, "characters_written", None)
        if count is None:
            raise
    else:
        if result is not None or not isinstance(writer, io.RawIOBase):
            return count_written(result, len(part))
        count = 0
    _wait(writer, "writer")
    return int(count)


def _read(reader: Any, buffer: memoryview) -> int | None:
    # Outside Python's own classes `readinto` can mean anything: a download's writes into a file.
    if isinstance(reader, io.IOBase) and hasattr(reader, "readinto"):
        count = reader.readinto(buffer)
        if count is None or (isinstance(count, int) and 0 <= count <= len(buffer)):
            return count
        if is_awaitable(count):
            _refuse_awaitable("reader", count)
        raise OSError(
            errno.EIO,
            "the reader's readinto returned no valid count; it must return a number of bytes or None",
        )
    data = reader.read(len(buffer))
    if data is None:
        return None
    view = checked_read(data, len(buffer))
    buffer[: len(view)] = view
    return len(view)


def _wait(stream: Any, who: str) -> None:
    """Wait until a non-blocking stream is ready. Raises `BlockingIOError` where it has no file descriptor."""
    descriptor = _descriptor(stream)
    if descriptor is None or os.get_blocking(descriptor):
        raise BlockingIOError(
            errno.EAGAIN,
            f"the {who} is not ready and has no file descriptor to wait for; pass one that blocks",
        )
    import select

    poll = select.poll()
    poll.register(descriptor, select.POLLIN if who == "reader" else select.POLLOUT)
    poll.poll()


def _descriptor(stream: Any) -> int | None:
    if not hasattr(stream, "fileno"):
        return None
    try:
        descriptor = stream.fileno()
    except io.UnsupportedOperation:  # any other error can be a signal handler's
        return None
    return descriptor if isinstance(descriptor, int) else None


def _refuse_awaitable(who: str, result: object) -> NoReturn:
    if hasattr(result, "close"):
        result.close()  # else Python warns that it was never awaited
    raise TypeError(f"the {who} is asynchronous; use the classes of kmsbridge.aio for it")
