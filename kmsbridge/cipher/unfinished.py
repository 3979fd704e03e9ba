"""A message whose plaintext is still to come."""

from __future__ import annotations

import contextlib
import errno
import threading
from collections.abc import Callable, Iterator
from typing import Final

from kmsbridge import forks
from kmsbridge.datakeys import DataKey, EncryptionKeys
from kmsbridge.errors import ClosedError, ReentrantCall
from kmsbridge.message import chunked, cobblestone

CHUNKS: Final = 4
"""Chunks that are encrypted at a time: their buffers take about 150 KiB for each file in use."""
STEP: Final = CHUNKS * cobblestone.CHUNK

# After these Python's own buffers call again by themselves, for ever where the answer stays the same.
_TRY_AGAIN: Final = (errno.EINTR, errno.EAGAIN)


class UnfinishedMessage:
    """Encrypts a message as its plaintext comes: in order, once, one thread at a time.

    Each use is a `turn`. Where anything fails during one, there is no other: a message of which a part may be
    lost must never be completed. There is none in a forked child either, where different plaintexts would be
    encrypted with the nonces that the parent uses.
    """

    def __init__(self, data_key: DataKey, aad: bytes, keys: EncryptionKeys) -> None:
        self.header = data_key.header
        self.step = chunked.Step(CHUNKS)
        """The buffers: what is in `step.plain` is encrypted next."""
        self.size = 0
        """Bytes of plaintext that were encrypted."""
        self.when_given_up: Callable[[], None] = lambda: None
        self.is_of_parent = False
        self._data_key, self._keys = data_key, keys
        self._encryptor = data_key.body_encryptor(aad)
        self._failure: int | None = None
        self._busy = False
        self._lock = threading.RLock()
        forks.watch(self)

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Let one thread use the message within the block.

        Raises `ClosedError` once the cipher is closed and in a forked child, `OSError` after an earlier turn
        failed, and `ReentrantCall` in a signal handler that interrupted a turn.
        """
        with self._lock:
            if self._busy:
                raise ReentrantCall(
                    "a signal handler used a file while the code that it interrupted was using it",
                    remedy="let the signal handler put its work into a queue",
                )
            try:
                self._busy = True
                self.check()
                yield
            except BaseException as error:
                self.give_up(error)
                raise
            finally:
                self._busy = False

    def check(self) -> None:
        """Raise what `turn` raises where the message cannot be continued."""
        if self.is_of_parent:
            raise ClosedError(
                "the file belongs to the process that this one was forked from", remedy="make one here"
            )
        self._keys.check_open()
        if self._failure is not None:
            raise OSError(
                self._failure, "an earlier read or write failed, so the message cannot be completed"
            )

    def encrypt(self, count: int) -> memoryview:
        """Encrypt the first `count` bytes of `step.plain`. Return what they complete, valid until the next
        call.
        """
        self.size += count
        return self._encryptor.encrypt_step(self.step, count)

    def finalize(self) -> bytes:
        """Return the end of the message, and count what it has used of its data key."""
        end = self._encryptor.finalize()
        self._keys.count(self._data_key, self.size)
        return end

    def give_up(self, error: BaseException | None = None) -> None:
        """Never encrypt anything again, because of `error`; calls `when_given_up` the first time."""
        with self._lock:  # not while another thread writes to what is closed here
            if self._failure is not None:
                return
            number = error.errno if isinstance(error, OSError) else None
            self._failure = errno.EIO if number is None or number in _TRY_AGAIN else number
            self.step.plain[:] = bytes(STEP)
            self.when_given_up()

    def after_fork(self) -> None:
        """Leave the message to the parent."""
        self.is_of_parent = True
        self._lock = threading.RLock()
        self._busy = False
