"""How encrypting is done without blocking the event loop: the waiting, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from kmsbridge import message as wire
from kmsbridge.aio import streams
from kmsbridge.aio.pulling import EncryptingReader
from kmsbridge.aio.threads import shared_load, stoppable
from kmsbridge.aio.writer import Writer, create_writer
from kmsbridge.atomic import PathLike
from kmsbridge.cipher.aad import Aad, as_aad
from kmsbridge.cipher.arguments import INLINE, Buffer, text_to_bytes
from kmsbridge.cipher.encryption import Encryption
from kmsbridge.cipher.files import Progress
from kmsbridge.cipher.many import Value
from kmsbridge.cipher.unfinished import UnfinishedMessage
from kmsbridge.context import EncryptionContext
from kmsbridge.datakeys import DataKey, Pairs, context_key
from kmsbridge.streams import Readable, Writable


class AsyncEncryption:
    """Encrypts by `core` where no wait is due, and else waits for threads that do."""

    def __init__(self, core: Encryption) -> None:
        self.core = core
        self.data_keys = core.data_keys
        self.encrypt_at_hand = core.encrypt_at_hand
        self.encrypt_text_at_hand = core.encrypt_text_at_hand

    async def encrypt(self, plaintext: Buffer, context: Pairs, aad: Aad) -> bytes:
        """Return the message that holds `plaintext`; at once where its data key is at hand."""
        message = self.encrypt_at_hand(plaintext, context, aad)
        if message is not None:
            return message
        if self.core.direct or len(plaintext) > INLINE:
            return await asyncio.to_thread(self.core.encrypt, plaintext, context, aad)
        data_key = await self._load(context, len(plaintext))
        return data_key.encrypt(plaintext, as_aad(aad))

    async def encrypt_text(self, text: str, context: Pairs, aad: Aad) -> str:
        """Return the armored message that holds `text` as UTF-8."""
        return wire.armor(await self.encrypt(text_to_bytes(text), context, aad))

    async def encrypt_many(
        self,
        plaintexts: Iterable[Value],
        context: Pairs,
        contexts: Sequence[Pairs] | None,
        aads: Sequence[Aad] | None,
    ) -> list[bytes | str | None]:
        """Return a message for each plaintext, in order, as `Encryption.encrypt_many` does."""
        return await asyncio.to_thread(self.core.encrypt_many, plaintexts, context, contexts, aads)

    async def encrypt_file(
        self, source: PathLike, target: PathLike, context: Pairs, aad: Aad, progress: Progress | None
    ) -> None:
        """Encrypt the file `source` into `target`; when cancelled it stops, and leaves no target."""
        await stoppable(lambda tick: self.core.encrypt_file(source, target, context, aad, tick), progress)

    async def encrypt_stream(
        self, reader: streams.AsyncReader, writer: streams.AsyncWriter, context: Pairs, aad: Aad
    ) -> None:
        """Encrypt what `reader` holds to its end into `writer`."""
        aad, keys = as_aad(aad), self.core.data_keys
        data_key = await self._stream_key(context)
        encryptor = data_key.body_encryptor(aad)
        await streams.write_all(writer, data_key.header)
        keys.count(data_key, await streams.encrypt_stream(encryptor, reader, writer, keys.check_open))

    async def create(
        self, target: PathLike | Writable | streams.AsyncWriter, context: Pairs, aad: Aad
    ) -> Writer:
        """Return a file that encrypts what is written to it into `target`."""
        return await create_writer(target, await self._unfinished(context, aad))

    async def encrypting(
        self, reader: Readable | streams.AsyncReader, context: Pairs, aad: Aad
    ) -> EncryptingReader:
        """Return an iterator over the message that holds what `reader` gives."""
        return EncryptingReader(reader, await self._unfinished(context, aad))

    async def _unfinished(self, context: Pairs, aad: Aad) -> UnfinishedMessage:
        aad = as_aad(aad)
        return UnfinishedMessage(await self._stream_key(context), aad, self.core.data_keys)

    async def _stream_key(self, context: Pairs) -> DataKey:
        self.core.check_may_stream()
        return self.core.data_keys.cached(context, 0) or await self._load(context, 0)

    async def _load(self, pairs: Pairs, size: int) -> DataKey:
        """Return the data key for one more message of `size` bytes, made and wrapped by a thread."""
        context, keys = EncryptionContext.of(pairs), self.core.data_keys
        keys.check_open()
        if not keys.shared:
            return await asyncio.to_thread(keys.get, context, size)
        name, data_key = context_key(context), None
        while data_key is None:
            loaded = await shared_load(keys.flights, name, lambda: keys.load(name, context))
            data_key = keys.take(loaded, size)
        return data_key
