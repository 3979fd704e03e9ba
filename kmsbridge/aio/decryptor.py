"""Decrypting, for asyncio."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Iterable, Sequence
from typing import BinaryIO, Literal, overload

from kmsbridge import cipher
from kmsbridge import message as wire
from kmsbridge.aio.opened import INLINE, Opened, entry_point
from kmsbridge.aio.reader import Reader
from kmsbridge.aio.streams import AsyncReader, AsyncWriter, decrypt_stream, read_start
from kmsbridge.aio.threads import shared_load, stoppable
from kmsbridge.atomic import PathLike
from kmsbridge.cipher import opening
from kmsbridge.cipher.arguments import Buffer, as_aad, as_bytes, bytes_to_text, check_aad, check_text
from kmsbridge.cipher.files import Progress
from kmsbridge.context import EncryptionContext
from kmsbridge.datakeys import Pairs, SingleFlight, context_key
from kmsbridge.errors import KmsBridgeError, forget_locals


class Decryptor(Opened[cipher.Decryptor]):
    """Decrypts, and has no way to encrypt."""

    _kind = cipher.Decryptor

    def __init__(self, sync: cipher.Decryptor) -> None:
        super().__init__(sync)
        self._fetches: SingleFlight[bool] = SingleFlight()

    async def decrypt(self, message: Buffer, *, context: Pairs = None, aad: Buffer = b"") -> bytes:
        """As `kmsbridge.Decryptor.decrypt`."""
        # `entry_point`, written out: one call more is a twentieth of a small message's time.
        try:
            try:
                return await self._decrypt(message, context, aad)
            except BaseException as error:
                self._sync._failed(error, context)
                raise
        except BaseException as error:
            del message, aad
            forget_locals(error)
            raise

    @entry_point
    async def decrypt_text(self, text: str, *, context: Pairs = None, aad: Buffer = b"") -> str:
        """As `kmsbridge.Decryptor.decrypt_text`."""
        return bytes_to_text(await self._decrypt(wire.dearmor(check_text(text)), context, aad))

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

    @entry_point
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

    @entry_point
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

    @entry_point
    async def decrypt_stream(
        self, reader: AsyncReader, writer: AsyncWriter, *, context: Pairs = None, aad: Buffer = b""
    ) -> None:
        """Decrypt a message from `reader` into `writer` as it comes; only verified chunks are written.

        Until this returns their end may be missing: use what was written only then.
        """
        aad = as_aad(aad)
        header, data = await read_start(reader)
        # The data key may take a call to the key service, so it is looked for on a thread.
        decryptor = await asyncio.to_thread(self._sync._body_decryptor, header, data, context, aad)
        await decrypt_stream(decryptor, data, reader, writer, self._sync._decryption.check_open)

    @entry_point
    async def open(self, source: PathLike | BinaryIO, *, context: Pairs = None, aad: Buffer = b"") -> Reader:
        """As `kmsbridge.Decryptor.open`; what it gives is read with `await`."""
        return Reader(await asyncio.to_thread(self._sync.open, source, context=context, aad=aad))

    async def _decrypt(self, message: Buffer, context: Pairs, aad: Buffer) -> bytes:
        data = as_bytes(message, "message", "decrypt_text")
        check_aad(aad)
        keys = self._sync._decryption
        if len(data) <= INLINE:
            plaintext = opening.decrypt_by_alias(keys, data, context, aad)
            if plaintext is None:
                plaintext = opening.decrypt_at_hand(keys, data, context, aad)
            if plaintext is None and await self._fetch(data, context):
                plaintext = opening.decrypt_at_hand(keys, data, context, aad)
            if plaintext is not None:
                return plaintext
        return await asyncio.to_thread(self._sync.decrypt, data, context=context, aad=aad)

    async def _fetch(self, data: bytes, pairs: Pairs) -> bool:
        """Have a data key of this message at hand; False where none is ever kept."""
        keys, header = self._sync._decryption, wire.parse(data)
        if not keys.shared or not header.has_recipients_data_key:
            return False
        context = EncryptionContext.of(pairs)
        name = (data[: header.length], context_key(context))
        return await shared_load(self._fetches, name, lambda: keys.fetch(header, context))
