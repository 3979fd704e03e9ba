"""Encrypting, for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from kmsbridge import cipher
from kmsbridge import message as wire
from kmsbridge.aio.opened import INLINE, Opened, entry_point
from kmsbridge.aio.streams import AsyncReader, AsyncWriter, encrypt_stream, write_all
from kmsbridge.aio.threads import shared_load, stoppable
from kmsbridge.atomic import PathLike
from kmsbridge.cipher.arguments import Buffer, as_aad, check_aad, check_bytes, text_to_bytes
from kmsbridge.cipher.files import Progress
from kmsbridge.context import EncryptionContext
from kmsbridge.datakeys import DataKey, Pairs, context_key
from kmsbridge.errors import forget_locals


class Encryptor(Opened[cipher.Encryptor]):
    """Encrypts, and has no way to decrypt."""

    _kind = cipher.Encryptor

    async def encrypt(self, plaintext: Buffer, *, context: Pairs = None, aad: Buffer = b"") -> bytes:
        """As `kmsbridge.Encryptor.encrypt`."""
        # `entry_point`, written out: one call more is a twentieth of a small message's time.
        try:
            try:
                return await self._encrypt(plaintext, context, aad)
            except BaseException as error:
                self._sync._failed(error, context)
                raise
        except BaseException as error:
            del plaintext, aad
            forget_locals(error)
            raise

    @entry_point
    async def encrypt_text(self, text: str, *, context: Pairs = None, aad: Buffer = b"") -> str:
        """As `kmsbridge.Encryptor.encrypt_text`."""
        return wire.armor(await self._encrypt(text_to_bytes(text), context, aad))

    @entry_point
    async def encrypt_many(
        self, plaintexts: Iterable[Buffer], *, context: Pairs = None, aads: Sequence[Buffer] | None = None
    ) -> list[bytes]:
        """As `kmsbridge.Encryptor.encrypt_many`; always on a thread."""
        return await asyncio.to_thread(self._sync.encrypt_many, plaintexts, context=context, aads=aads)

    @entry_point
    async def encrypt_file(
        self,
        source: PathLike,
        target: PathLike,
        *,
        context: Pairs = None,
        aad: Buffer = b"",
        progress: Progress | None = None,
    ) -> None:
        """As `kmsbridge.Encryptor.encrypt_file`; when cancelled it stops, and leaves no target."""
        await stoppable(
            lambda tick: self._sync.encrypt_file(source, target, context=context, aad=aad, progress=tick),
            progress,
        )

    @entry_point
    async def encrypt_stream(
        self, reader: AsyncReader, writer: AsyncWriter, *, context: Pairs = None, aad: Buffer = b""
    ) -> None:
        """Encrypt what `reader` holds to its end into `writer`, which is drained and left open."""
        aad = as_aad(aad)
        self._sync._check_no_direct()
        entry = await self._sealing_key(context, 0)
        encryptor = entry.body_encryptor(aad)
        await write_all(writer, entry.header)
        keys = self._sync._encryption
        keys.count(entry, await encrypt_stream(encryptor, reader, writer, keys.check_open))

    async def _encrypt(self, plaintext: Buffer, context: Pairs, aad: Buffer) -> bytes:
        check_bytes(plaintext, "plaintext", "encrypt_text")
        if self._sync._profile.direct or len(plaintext) > INLINE:
            return await asyncio.to_thread(self._sync.encrypt, plaintext, context=context, aad=aad)
        check_aad(aad)
        entry = self._sync._encryption.cached(context, len(plaintext))
        if entry is None:
            entry = await self._sealing_key(context, len(plaintext))
        return entry.encrypt(plaintext, aad)

    async def _sealing_key(self, pairs: Pairs, size: int) -> DataKey:
        keys = self._sync._encryption
        entry = keys.cached(pairs, size)
        if entry is not None:
            return entry
        context = EncryptionContext.of(pairs)
        keys.check_open()
        if not keys.shared:
            return await asyncio.to_thread(keys.get, context, size)
        name = context_key(context)
        while entry is None:
            loaded = await shared_load(keys.flights, name, lambda: keys.load(name, context))
            entry = keys.take(loaded, size)
        return entry
