"""A message as a seekable file, for asyncio."""

from __future__ import annotations

import asyncio
import os
from types import TracebackType
from typing import Self

from kmsbridge.cipher.reading import MessageReader


class Reader:
    """A seekable file of a message's plaintext; tasks may share it, and take turns."""

    def __init__(self, sync: MessageReader) -> None:
        self._sync = sync
        self._turn = asyncio.Lock()

    @property
    def size(self) -> int:
        """The length of the plaintext in bytes."""
        return self._sync.size

    async def read(self, size: int = -1, /) -> bytes:
        """Return up to `size` bytes from the position on; to the end where it is negative."""
        async with self._turn:
            return await asyncio.to_thread(self._sync.read, size)

    async def read_at(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes from `offset` on; the position moves behind them."""
        async with self._turn:
            self._sync.seek(offset)
            return await asyncio.to_thread(self._sync.read, size)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move the position, and return it; no chunk is read."""
        return self._sync.seek(offset, whence)

    def tell(self) -> int:
        """Return the position in bytes."""
        return self._sync.tell()

    async def close(self) -> None:
        """Forget the key, and close the file if it was opened here."""
        async with self._turn:
            self._sync.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
