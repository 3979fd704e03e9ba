"""Reading from and writing to what somebody else calls a stream.

Anything with a `read` or a `write` may be given, and not all mean the same by it. What they get is theirs to
keep, what they answer is looked at, and where it makes no sense the error says whose fault it is.
"""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Awaitable
from typing import Any, Final, NoReturn, TypeGuard

_PIECE: Final = 64 * 1024
"""Bytes that are offered to a writer which did not take all at once."""
_EITHER: Final = "its write must give None, or how many bytes it took"


def write_all(writer: Any, data: Any) -> None:
    """Write all of the bytes-like `data`, in as many writes as it takes.

    A file of the operating system (`io.FileIO`), which keeps nothing, is lent `data` itself; every other writer gets
    `bytes` of its own. One that does not block is waited for. Raises `OSError` where the writer
    takes nothing, `BlockingIOError` where there is nothing to wait for, `TypeError` for one that is to be awaited.
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
    """Fill `buffer` from the start, with as much as one read gives; 0 at the end.

    One that does not block is waited for. Raises `TypeError` for a reader of text and for one that is to be
    awaited, `ValueError` where it gives more than `buffer` takes, `BlockingIOError` where there is nothing to wait for.
    """
    while (count := _read(reader, buffer)) is None:
        _wait(reader, "reader")
    return count


def taken(answer: object, length: int) -> int:
    """How many of `length` bytes a writer took, by what its `write` gave: None and True stand for all."""
    if answer is None or answer is True:
        return length
    if is_awaitable(answer):
        _refuse_awaitable("writer", answer)
    if not isinstance(answer, int):
        raise TypeError(f"the writer gave {type(answer).__name__}: {_EITHER}")
    if not 0 < answer <= length:
        raise OSError(errno.EIO, f"the writer says that it took {int(answer)} of {length} bytes: {_EITHER}")
    return answer


def given(data: object, length: int) -> memoryview:
    """What a reader gave that was asked for `length` bytes. Raises `TypeError` or `ValueError` where it cannot be used."""
    if isinstance(data, str):
        raise TypeError("the reader gives text: open it in binary mode")
    if is_awaitable(data):
        _refuse_awaitable("reader", data)
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise TypeError(f"the reader gave {type(data).__name__}: its read must give bytes")
    view = memoryview(data).cast("B")
    if len(view) > length:
        raise ValueError(
            f"the reader gave {len(view)} bytes and was asked for {length}: its read must give no more"
        )
    return view


def is_awaitable(answer: object) -> TypeGuard[Awaitable[Any]]:
    """Whether it is a coroutine, or anything else that wants `await`."""
    return hasattr(type(answer), "__await__")


def _write(writer: Any, part: bytes | memoryview) -> int:
    """How many bytes one write takes; 0 where it had to be waited for."""
    try:
        answer = writer.write(part)
    except BlockingIOError as error:
        count = getattr(error, "characters_written", None)
        if count is None:
            raise
    else:
        if answer is not None or not isinstance(writer, io.RawIOBase):
            return taken(answer, len(part))
        count = 0
    _wait(writer, "writer")
    return int(count)


def _read(reader: Any, buffer: memoryview) -> int | None:
    # Elsewhere than in Python's own classes `readinto` can mean anything: a download's writes into a file.
    if isinstance(reader, io.IOBase) and hasattr(reader, "readinto"):
        count = reader.readinto(buffer)
        if count is None or (isinstance(count, int) and 0 <= count <= len(buffer)):
            return count
        if is_awaitable(count):
            _refuse_awaitable("reader", count)
        raise OSError(errno.EIO, "the reader's readinto must give how many bytes there are, or None")
    data = reader.read(len(buffer))
    if data is None:
        return None
    view = given(data, len(buffer))
    buffer[: len(view)] = view
    return len(view)


def _wait(stream: Any, who: str) -> None:
    """Wait until a stream that does not block can go on. Raises `BlockingIOError` where nobody can tell when."""
    descriptor = _descriptor(stream)
    if descriptor is None or os.get_blocking(descriptor):
        raise BlockingIOError(
            errno.EAGAIN, f"the {who} is not ready and cannot be waited for: give one that blocks"
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
    except io.UnsupportedOperation:  # no other error: it can be a signal handler's
        return None
    return descriptor if isinstance(descriptor, int) else None


def _refuse_awaitable(who: str, answer: object) -> NoReturn:
    if hasattr(answer, "close"):
        answer.close()  # else Python warns that it was never awaited
    raise TypeError(f"the {who} is to be awaited: use the classes of kmsbridge.aio for it")
