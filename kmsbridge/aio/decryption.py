"""How decrypting is done without blocking the event loop: the waiting, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import BinaryIO

from kmsbridge import message as wire
from kmsbridge.aio import streams
from kmsbridge.aio.reader import Reader
from kmsbridge.aio.threads import shared_load, stoppable
from kmsbridge.atomic import PathLike
from kmsbridge.cipher.aad import Aad, as_aad
from kmsbridge.cipher.arguments import INLINE, Buffer, as_bytes, bytes_to_text, check_text
from kmsbridge.cipher.decryption import Decryption, Outcome, binary_of
from kmsbridge.cipher.files import Progress
from kmsbridge.cipher.many import Value
from kmsbridge.context import EncryptionContext
from kmsbridge.datakeys import Pairs, SingleFlight, context_key
from kmsbridge.errors import KmsBridgeError
from kmsbridge.secretvalue import SecretValue


class AsyncDecryption:
    """Decrypts by `core` where no wait is due, and else waits for threads that do."""

    def __init__(self, core: Decryption) -> None:
        self.core = core
        self.data_keys = core.data_keys
        self.decrypt_at_hand = core.decrypt_at_hand
        self.decrypt_text_at_hand = core.decrypt_text_at_hand
        # By header and context: which keys a message takes, one after the other, shows on the way.
        self._loads: SingleFlight[bool] = SingleFlight()

    async def decrypt(self, message: Buffer, context: Pairs, aad: Aad) -> bytes:
        """Return the plaintext of `message`, once all of it is verified; at once where its data key is at
        hand.
        """
        data = as_bytes(message, "message", "decrypt_text")
        plaintext = self.decrypt_at_hand(data, context, aad)
        if plaintext is None and len(data) <= INLINE and await self._load(data, context):
            plaintext = self.decrypt_at_hand(data, context, aad)
        if plaintext is not None:
            return plaintext
        return await asyncio.to_thread(self.core.decrypt, data, context, aad)

    async def decrypt_text(self, text: str, context: Pairs, aad: Aad) -> str:
        """Return the text in an armored message."""
        return bytes_to_text(await self.decrypt(wire.dearmor(check_text(text)), context, aad))

    async def decrypt_secret(self, message: Buffer | str, context: Pairs, aad: Aad) -> SecretValue:
        """Return the plaintext of a message, armored or not, as a value that does not show."""
        return SecretValue(await self.decrypt(binary_of(message), context, aad))

    async def decrypt_many(
        self,
        messages: Iterable[Value],
        context: Pairs,
        contexts: Sequence[Pairs] | None,
        aads: Sequence[Aad] | None,
        errors: str,
        failed: Callable[[KmsBridgeError, Pairs], None],
    ) -> list[Outcome]:
        """Return the plaintext of each message, in order, as `Decryption.decrypt_many` does."""
        return await asyncio.to_thread(
            self.core.decrypt_many, messages, context, contexts, aads, errors, failed
        )

    async def decrypt_file(
        self, source: PathLike, target: PathLike, context: Pairs, aad: Aad, progress: Progress | None
    ) -> None:
        """Decrypt the file `source` into `target`; when cancelled it stops, and leaves no target."""
        await stoppable(lambda tick: self.core.decrypt_file(source, target, context, aad, tick), progress)

    async def decrypt_stream(
        self, reader: streams.AsyncReader, writer: streams.AsyncWriter, context: Pairs, aad: Aad
    ) -> None:
        """Decrypt a message from `reader` into `writer` as it comes, chunk by verified chunk."""
        aad = as_aad(aad)
        header, start = await streams.read_start(reader)
        # The data key may take a call to the key service, so it is looked for on a thread.
        decryptor = await asyncio.to_thread(self.core.body_decryptor, header, start, context, aad)
        await streams.decrypt_stream(decryptor, start, reader, writer, self.core.data_keys.check_open)

    async def open_file(self, source: PathLike | BinaryIO, context: Pairs, aad: Aad) -> Reader:
        """Return a seekable file of the plaintext in `source`."""
        return Reader(await asyncio.to_thread(self.core.open_file, source, context, aad))

    async def _load(self, message: bytes, pairs: Pairs) -> bool:
        """Have a thread bring a data key of this message; False where none is ever kept."""
        keys, header = self.core.data_keys, wire.parse(message)
        if not keys.shared or not header.has_recipients_data_key:
            return False
        context = EncryptionContext.of(pairs)
        name = (message[: header.length], context_key(context))
        return await shared_load(self._loads, name, lambda: keys.fetch(header, context))
