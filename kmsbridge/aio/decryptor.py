"""Decrypting, for asyncio."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Iterable, Sequence
from typing import BinaryIO, Literal, overload

from kmsbridge import body, cipher
from kmsbridge import message as wire
from kmsbridge.aio.opened import INLINE, Opened
from kmsbridge.aio.reader import Reader
from kmsbridge.aio.streams import AsyncReader, AsyncWriter, open_stream, read_start
from kmsbridge.aio.threads import fetch, stoppable
from kmsbridge.atomic import PathLike
from kmsbridge.cipher import direct
from kmsbridge.cipher.arguments import Buffer, as_bytes, bytes_to_text, check_bytes, check_text
from kmsbridge.cipher.direct import DirectOpener
from kmsbridge.cipher.files import Progress
from kmsbridge.context import EncryptionContext
from kmsbridge.datakeys import CachedKey, Pairs, name_of
from kmsbridge.datakeys.decryption import without_padding
from kmsbridge.errors import KmsBridgeError, forget_locals


class Decryptor(Opened[cipher.Decryptor]):
    """Decrypts, and has no way to encrypt."""

    _kind = cipher.Decryptor

    async def decrypt(self, message: Buffer, *, context: Pairs = None, aad: Buffer = b"") -> bytes:
        """As `kmsbridge.Decryptor.decrypt`."""
        try:
            data = as_bytes(message, "message", "decrypt_text")
            check_bytes(aad, "aad")
            if len(data) > INLINE:
                return await asyncio.to_thread(self._sync.decrypt, data, context=context, aad=aad)
            start = int.from_bytes(data[6:8], "big")
            entry = self._sync._decryption.cached(data[:start], context, len(data))
            if entry is None or len(data) - start < wire.MIN_BODY:
                header = wire.parse(data)
                if header.kind is wire.Kind.DIRECT:
                    return await asyncio.to_thread(self._sync.decrypt, data, context=context, aad=aad)
                entry = await self._opening_key(header, context, len(data))
            return body.open_sealed(entry.key.reveal(), entry.seal_context + aad, memoryview(data)[start:])
        except BaseException as error:
            self._sync._failed(error, context)
            del message, aad
            raise

    async def decrypt_text(self, text: str, *, context: Pairs = None, aad: Buffer = b"") -> str:
        """As `kmsbridge.Decryptor.decrypt_text`."""
        try:
            message = wire.dearmor(check_text(text))
            return bytes_to_text(await self.decrypt(message, context=context, aad=aad))
        except BaseException as error:
            forget_locals(error)
            del aad
            raise

    @overload
    async def decrypt_many(
        self,
        messages: Iterable[Buffer],
        *,
        context: Pairs = ...,
        aads: Sequence[Buffer] | None = ...,
        errors: Literal["raise"] = ...,
    ) -> list[bytes]: ...

    @overload
    async def decrypt_many(
        self,
        messages: Iterable[Buffer],
        *,
        context: Pairs = ...,
        aads: Sequence[Buffer] | None = ...,
        errors: Literal["raise", "return"],
    ) -> list[bytes | KmsBridgeError]: ...

    async def decrypt_many(
        self,
        messages: Iterable[Buffer],
        *,
        context: Pairs = None,
        aads: Sequence[Buffer] | None = None,
        errors: Literal["raise", "return"] = "raise",
    ) -> list[bytes] | list[bytes | KmsBridgeError]:
        """As `kmsbridge.Decryptor.decrypt_many`; always on a thread."""
        work = functools.partial(self._sync.decrypt_many, context=context, aads=aads, errors=errors)
        return await asyncio.to_thread(work, messages)

    async def decrypt_file(
        self,
        source: PathLike,
        target: PathLike,
        *,
        context: Pairs = None,
        aad: Buffer = b"",
        progress: Progress | None = None,
    ) -> None:
        """As `kmsbridge.Decryptor.decrypt_file`; when cancelled it stops, and leaves no target."""
        await stoppable(
            lambda tick: self._sync.decrypt_file(source, target, context=context, aad=aad, progress=tick),
            progress,
        )

    async def decrypt_stream(
        self, reader: AsyncReader, writer: AsyncWriter, *, context: Pairs = None, aad: Buffer = b""
    ) -> None:
        """Decrypt a message from `reader` into `writer` as it comes; only verified chunks are written.

        Until this returns their end may be missing: use what was written only then.
        """
        aad = as_bytes(aad, "aad")
        try:
            header, data = await read_start(reader)
            opener = await self._opener(header, context, aad)
            await open_stream(opener, data, reader, writer, self._sync._decryption.check_open)
        except BaseException as error:
            self._sync._failed(error, context)
            raise

    async def open(self, source: PathLike | BinaryIO, *, context: Pairs = None, aad: Buffer = b"") -> Reader:
        """As `kmsbridge.Decryptor.open`; what it gives is read with `await`."""
        return Reader(await asyncio.to_thread(self._sync.open, source, context=context, aad=aad))

    async def _opener(self, header: wire.Header, context: Pairs, aad: bytes) -> body.Opener | DirectOpener:
        if header.kind is wire.Kind.DIRECT:
            keys = self._sync._decryption
            return DirectOpener(await asyncio.to_thread(direct.decrypt, keys, header, context, aad))
        entry = await self._opening_key(header, context, 0)
        return body.Opener(entry.key.reveal(), entry.seal_context + aad)

    async def _opening_key(self, header: wire.Header, pairs: Pairs, size: int) -> CachedKey:
        keys = self._sync._decryption
        if not keys.shared:
            return await asyncio.to_thread(keys.get, header, pairs, size)
        context, bare = EncryptionContext.of(pairs), without_padding(header)
        packed = bare.encode()
        name = (packed, name_of(context))
        return await fetch(
            keys.flights,
            name,
            lambda: keys.cached(packed, context, size),
            lambda: keys.load(name, bare, context),
        )
