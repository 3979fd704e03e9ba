"""Both roles in one object, for asyncio, and rewrapping."""

from __future__ import annotations

import asyncio

from kmsbridge import cipher
from kmsbridge.aio.decryptor import Decryptor
from kmsbridge.aio.encryptor import Encryptor
from kmsbridge.aio.opened import entry_point
from kmsbridge.atomic import PathLike
from kmsbridge.cipher.arguments import Buffer
from kmsbridge.datakeys import Pairs


class EnvelopeCipher(Encryptor, Decryptor):
    """Both, and rewraps."""

    _kind = cipher.EnvelopeCipher
    _sync: cipher.EnvelopeCipher

    @entry_point
    async def rewrap(self, message: Buffer, *, context: Pairs = None, aad: Buffer = b"") -> bytes:
        """As `kmsbridge.EnvelopeCipher.rewrap`."""
        return await asyncio.to_thread(self._sync.rewrap, message, context=context, aad=aad)

    @entry_point
    async def rewrap_file(self, path: PathLike, *, context: Pairs = None, aad: Buffer = b"") -> None:
        """As `kmsbridge.EnvelopeCipher.rewrap_file`."""
        await asyncio.to_thread(self._sync.rewrap_file, path, context=context, aad=aad)

    @entry_point
    async def needs_rewrap(self, message: Buffer) -> bool:
        """As `kmsbridge.EnvelopeCipher.needs_rewrap`."""
        return await asyncio.to_thread(self._sync.needs_rewrap, message)
