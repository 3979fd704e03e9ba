"""Encrypting, for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from kmsbridge import body, cipher
from kmsbridge import message as wire
from kmsbridge.aio.opened import INLINE, Opened
from kmsbridge.aio.streams import AsyncReader, AsyncWriter, seal_stream, write_all
from kmsbridge.aio.threads import fetch, stoppable
from kmsbridge.atomic import PathLike
from kmsbridge.cipher.arguments import Buffer, as_bytes, check_bytes, text_to_bytes
from kmsbridge.cipher.files import Progress
from kmsbridge.context import EncryptionContext
from kmsbridge.datakeys import CachedKey, Pairs, name_of
from kmsbridge.errors import forget_locals


class Encryptor(Opened[cipher.Encryptor]):
    """Encrypts, and has no way to decrypt."""

    _kind = cipher.Encryptor

    async def encrypt(self, plaintext: Buffer, *, context: Pairs = None, aad: Buffer = b"") -> bytes:
        """As `kmsbridge.Encryptor.encrypt`."""
        try:
            check_bytes(plaintext, "plaintext", "encrypt_text")
            if self._sync._profile.direct or len(plaintext) > INLINE:
                return await asyncio.to_thread(self._sync.encrypt, plaintext, context=context, aad=aad)
            check_bytes(aad, "aad")
            entry = await self._sealing_key(context, len(plaintext))
            return body.seal(entry.key.reveal(), entry.seal_context + aad, plaintext, entry.header)
        except BaseException as error:
            self._sync._failed(error, context)
            del plaintext, aad
            raise

    async def encrypt_text(self, text: str, *, context: Pairs = None, aad: Buffer = b"") -> str:
        """As `kmsbridge.Encryptor.encrypt_text`."""
        try:
            return wire.armor(await self.encrypt(text_to_bytes(text), context=context, aad=aad))
        except BaseException as error:
            forget_locals(error)
            del text, aad
            raise

    async def encrypt_many(
        self, plaintexts: Iterable[Buffer], *, context: Pairs = None, aads: Sequence[Buffer] | None = None
    ) -> list[bytes]:
        """As `kmsbridge.Encryptor.encrypt_many`; always on a thread."""
        try:
            return await asyncio.to_thread(self._sync.encrypt_many, plaintexts, context=context, aads=aads)
        except BaseException as error:
            forget_locals(error)
            del plaintexts, aads
            raise

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

    async def encrypt_stream(
        self, reader: AsyncReader, writer: AsyncWriter, *, context: Pairs = None, aad: Buffer = b""
    ) -> None:
        """Encrypt what `reader` holds to its end into `writer`, which is drained and left open."""
        try:
            aad = as_bytes(aad, "aad")
            self._sync._check_no_direct()
            entry = await self._sealing_key(context, 0)
            sealer = body.Sealer(entry.key.reveal(), entry.seal_context + aad)
            await write_all(writer, entry.header)
            keys = self._sync._encryption
            keys.count(entry, await seal_stream(sealer, reader, writer, keys.check_open))
        except BaseException as error:
            self._sync._failed(error, context)
            raise

    async def _sealing_key(self, pairs: Pairs, size: int) -> CachedKey:
        keys = self._sync._encryption
        entry = keys.cached(pairs, size)
        if entry is not None:
            return entry
        context = EncryptionContext.of(pairs)
        if not keys.shared:
            return await asyncio.to_thread(keys.get, context, size)
        name = name_of(context)
        return await fetch(
            keys.flights, name, lambda: keys.cached(context, size), lambda: keys.load(name, context)
        )
