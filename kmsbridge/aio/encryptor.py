"""Encrypting, for asyncio."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Unpack, overload

from kmsbridge.aio.base import AsyncCipher, guarded
from kmsbridge.aio.encryption import AsyncEncryption
from kmsbridge.aio.pulling import EncryptingReader
from kmsbridge.aio.streams import AsyncReader, AsyncWriter
from kmsbridge.aio.writer import Writer
from kmsbridge.atomic import PathLike
from kmsbridge.cipher.aad import Aad
from kmsbridge.cipher.arguments import Buffer
from kmsbridge.cipher.base import driver_session
from kmsbridge.cipher.driver_objects import CipherOptions
from kmsbridge.cipher.encryption import Encryption
from kmsbridge.cipher.files import Progress
from kmsbridge.cipher.many import Value
from kmsbridge.cipher.session import Session
from kmsbridge.datakeys import Pairs
from kmsbridge.driver import KeyDriver
from kmsbridge.errors import forget_locals
from kmsbridge.streams import Readable, Writable


class EncryptMethods:
    """The methods of `Encryptor` that encrypt, which `EnvelopeCipher` has as well."""

    _session: Session
    _encryption: AsyncEncryption

    async def encrypt(self, plaintext: Buffer, *, context: Pairs = None, aad: Aad = b"") -> bytes:
        """Return the message that holds `plaintext`, bound to `context` and `aad`.

        Up to 1 MiB, and with the data key at hand, it is done at once, without a thread. A mutable buffer
        must not change until this returns. Raises `TypeError` for what is not bytes-like, `ConfigError` or
        `LimitExceeded` for a context that cannot be, and `KmsError` where any of the profile's keys could not
        wrap the data key.
        """
        # `guarded`, written out: one call more is a twentieth of a small message's time.
        try:
            try:
                # Without a coroutine where there is nothing to wait for: it costs a tenth of a small message.
                message = self._encryption.encrypt_at_hand(plaintext, context, aad)
                return message or await self._encryption.encrypt(plaintext, context, aad)
            except BaseException as error:
                self._session.failed(error, context)
                raise
        except BaseException as error:
            del plaintext, aad
            forget_locals(error)
            raise

    async def encrypt_text(self, text: str, *, context: Pairs = None, aad: Aad = b"") -> str:
        """Return the message that holds `text` in armored form: for a text column, JSON, an environment.

        Raises what `encrypt` raises, and `ValueError` for text that cannot be written as UTF-8.
        """
        try:
            try:  # as in `encrypt`
                message = self._encryption.encrypt_text_at_hand(text, context, aad)
                return message or await self._encryption.encrypt_text(text, context, aad)
            except BaseException as error:
                self._session.failed(error, context)
                raise
        except BaseException as error:
            del text, aad
            forget_locals(error)
            raise

    @overload
    async def encrypt_many(
        self,
        plaintexts: Iterable[Buffer],
        *,
        context: Pairs = ...,
        contexts: Sequence[Pairs] | None = ...,
        aads: Sequence[Aad] | None = ...,
    ) -> list[bytes]: ...

    @overload
    async def encrypt_many(
        self,
        plaintexts: Iterable[str],
        *,
        context: Pairs = ...,
        contexts: Sequence[Pairs] | None = ...,
        aads: Sequence[Aad] | None = ...,
    ) -> list[str]: ...

    @overload
    async def encrypt_many(
        self,
        plaintexts: Iterable[Value],
        *,
        context: Pairs = ...,
        contexts: Sequence[Pairs] | None = ...,
        aads: Sequence[Aad] | None = ...,
    ) -> list[Any]: ...

    @guarded
    async def encrypt_many(
        self,
        plaintexts: Iterable[Value],
        *,
        context: Pairs = None,
        contexts: Sequence[Pairs] | None = None,
        aads: Sequence[Aad] | None = None,
    ) -> list[Any]:
        """Return a message for each plaintext, in order: an armored one for text, and None for None. All or none.

        They are of one `context`, or `contexts` has one for each; `aads` has one for each. Always done on a thread.
        Raises what `encrypt` and `encrypt_text` raise; an error that an item causes has its place in `index`.
        """
        return await self._encryption.encrypt_many(plaintexts, context, contexts, aads)

    @guarded
    async def encrypt_file(
        self,
        source: PathLike,
        target: PathLike,
        *,
        context: Pairs = None,
        aad: Aad = b"",
        progress: Progress | None = None,
    ) -> None:
        """Encrypt the file `source` into `target` on a thread, in constant memory.

        `target` appears whole or not at all, also when the task is cancelled; it may be `source`. `progress`
        is called on the event loop with the bytes done. Raises what `encrypt` raises, `ConfigError` in direct
        mode, and `OSError`.
        """
        await self._encryption.encrypt_file(source, target, context, aad, progress)

    @guarded
    async def encrypt_stream(
        self, reader: AsyncReader, writer: AsyncWriter, *, context: Pairs = None, aad: Aad = b""
    ) -> None:
        """Encrypt what `reader` holds to its end into `writer`, which is drained and left open.

        Raises what `encrypt` raises, and `ConfigError` in direct mode.
        """
        await self._encryption.encrypt_stream(reader, writer, context, aad)

    @guarded
    async def create(
        self, target: PathLike | Writable | AsyncWriter, *, context: Pairs = None, aad: Aad = b""
    ) -> Writer:
        """Return a file that encrypts what is written to it into `target`, to be used with `async with`.

        A path appears whole when the block ends, and not at all where that is by an exception. A writer that
        is passed in, also one that is awaited, is written as it comes and left open; after an exception its
        message has no end, so that every reader refuses it. Paths and files of Python's own are written on a
        thread. Raises what `encrypt` raises, `ConfigError` in direct mode, and `OSError`.
        """
        return await self._encryption.create(target, context, aad)

    @guarded
    async def encrypting(
        self, reader: Readable | AsyncReader, *, context: Pairs = None, aad: Aad = b""
    ) -> EncryptingReader:
        """Return an asynchronous iterator over the message that holds what `reader` gives, encrypted
        meanwhile.

        For what takes one and pulls, such as an upload. `reader` is read as the result is, and left open: on
        a thread where it is a file, with `await` where its `read` gives something to await. Raises what
        `encrypt` raises, and `ConfigError` in direct mode.
        """
        return await self._encryption.encrypting(reader, context, aad)


class Encryptor(EncryptMethods, AsyncCipher):
    """Encrypts, and has no way to decrypt. Made like `kmsbridge.Encryptor`, from a configuration or driver
    objects.

    Tasks may share it, and so may several event loops. Close it by `await close()`, or use it with `async
    with`.
    """

    _uses = ("encrypt_to",)

    def __init__(self, *, encrypt_to: Sequence[KeyDriver], **options: Unpack[CipherOptions]) -> None:
        self._begin(driver_session(options, encrypt_to=encrypt_to))

    def _begin(self, session: Session, encryption: AsyncEncryption | None = None) -> None:
        self._session = session
        self._encryption = encryption or AsyncEncryption(session.add_part(Encryption))
        self._closes = encryption.core if encryption else session
