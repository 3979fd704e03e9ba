"""Encrypting and decrypting in one object, for asyncio, and rewrapping."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, BinaryIO, Literal, Unpack, overload

from kmsbridge.aio.base import AsyncCipher, guarded
from kmsbridge.aio.decryption import AsyncDecryption
from kmsbridge.aio.decryptor import Decryptor
from kmsbridge.aio.encryption import AsyncEncryption
from kmsbridge.aio.encryptor import Encryptor
from kmsbridge.aio.reader import Reader
from kmsbridge.aio.streams import AsyncReader, AsyncWriter
from kmsbridge.atomic import PathLike
from kmsbridge.cipher.arguments import Buffer
from kmsbridge.cipher.base import driver_session, make_cipher
from kmsbridge.cipher.decryption import Decryption
from kmsbridge.cipher.driver_objects import CipherOptions
from kmsbridge.cipher.encryption import Encryption
from kmsbridge.cipher.files import Progress
from kmsbridge.cipher.rewrapping import Rewrapping
from kmsbridge.cipher.session import Session
from kmsbridge.datakeys import Pairs
from kmsbridge.driver import KeyDriver
from kmsbridge.errors import KmsBridgeError, forget_locals


class EnvelopeCipher(AsyncCipher):
    """Encrypts, decrypts and rewraps. Made like `kmsbridge.EnvelopeCipher`, from a configuration or driver objects.

    It is put together from an `encryptor` and a `decryptor`, each of which may be handed to what must not do the
    other. Tasks may share it, and so may several event loops. Close it by `await close()`, or use it with
    `async with`.
    """

    _uses = ("encrypt_to", "decrypt_with")

    def __init__(
        self,
        *,
        encrypt_to: Sequence[KeyDriver],
        decrypt_with: Sequence[KeyDriver],
        **options: Unpack[CipherOptions],
    ) -> None:
        self._begin(driver_session(options, encrypt_to=encrypt_to, decrypt_with=decrypt_with))

    def _begin(self, session: Session) -> None:
        self._session = self._closes = session
        encryption, decryption = session.add_part(Encryption), session.add_part(Decryption)
        self._rewrapping = session.add_part(Rewrapping, encryption.data_keys, decryption.data_keys)
        self._encryption, self._decryption = AsyncEncryption(encryption), AsyncDecryption(decryption)
        self._encryptor = make_cipher(Encryptor, session, self._encryption)
        self._decryptor = make_cipher(Decryptor, session, self._decryption)

    @property
    def encryptor(self) -> Encryptor:
        """What encrypts, over the same keys and data keys. Closing it alone ends encrypting, and nothing else."""
        return self._encryptor

    @property
    def decryptor(self) -> Decryptor:
        """What decrypts, over the same keys and data keys. Closing it alone ends decrypting, and nothing else."""
        return self._decryptor

    # --- encrypting -------------------------------------------------------------------------------

    async def encrypt(self, plaintext: Buffer, *, context: Pairs = None, aad: Buffer = b"") -> bytes:
        """Return the message that holds `plaintext`, bound to `context` and `aad`.

        Up to 1 MiB, and with the data key at hand, it is done at once, without a thread. Raises what
        `Encryptor.encrypt` raises: `TypeError`, `ConfigError` or `LimitExceeded` for a context that cannot be,
        `KmsError` where a key could not wrap.
        """
        # `guarded`, written out: one call more is a twentieth of a small message's time.
        try:
            try:
                return await self._encryption.encrypt(plaintext, context, aad)
            except BaseException as error:
                self._session.failed(error, context)
                raise
        except BaseException as error:
            del plaintext, aad
            forget_locals(error)
            raise

    @guarded
    async def encrypt_text(self, text: str, *, context: Pairs = None, aad: Buffer = b"") -> str:
        """Return the message that holds `text` in armored form.

        Raises what `encrypt` raises, and `ValueError` for text that cannot be written as UTF-8.
        """
        return await self._encryption.encrypt_text(text, context, aad)

    @guarded
    async def encrypt_many(
        self, plaintexts: Iterable[Buffer], *, context: Pairs = None, aads: Sequence[Buffer] | None = None
    ) -> list[bytes]:
        """Return a message for each plaintext, all of one context; `aads` has one for each. All or none.

        Always done on a thread. Raises what `encrypt` raises; an error that an item causes has its place in
        `index`.
        """
        return await self._encryption.encrypt_many(plaintexts, context, aads)

    @guarded
    async def encrypt_file(
        self,
        source: PathLike,
        target: PathLike,
        *,
        context: Pairs = None,
        aad: Buffer = b"",
        progress: Progress | None = None,
    ) -> None:
        """Encrypt the file `source` into `target` on a thread; when cancelled it stops, and leaves no target.

        `progress` is called on the event loop with the bytes done. Raises what `encrypt` raises, `ConfigError` in
        direct mode, and `OSError`.
        """
        await self._encryption.encrypt_file(source, target, context, aad, progress)

    @guarded
    async def encrypt_stream(
        self, reader: AsyncReader, writer: AsyncWriter, *, context: Pairs = None, aad: Buffer = b""
    ) -> None:
        """Encrypt what `reader` holds to its end into `writer`, which is drained and left open.

        Raises what `encrypt` raises, and `ConfigError` in direct mode.
        """
        await self._encryption.encrypt_stream(reader, writer, context, aad)

    # --- decrypting -------------------------------------------------------------------------------

    async def decrypt(self, message: Buffer, *, context: Pairs = None, aad: Buffer = b"") -> bytes:
        """Return the plaintext of `message`, once all of it is verified.

        Up to 1 MiB, and with the data key at hand, it is done at once, without a thread. Raises what
        `Decryptor.decrypt` raises: `MessageError`, `AuthenticationError` for a wrong context, a wrong aad or
        changed bytes, `NoMatchingKey`, `KmsError`, `TypeError`.
        """
        # `guarded`, written out: one call more is a twentieth of a small message's time.
        try:
            try:
                return await self._decryption.decrypt(message, context, aad)
            except BaseException as error:
                self._session.failed(error, context)
                raise
        except BaseException as error:
            del message, aad
            forget_locals(error)
            raise

    @guarded
    async def decrypt_text(self, text: str, *, context: Pairs = None, aad: Buffer = b"") -> str:
        """Return the text in an armored message; white space around it is ignored.

        Raises what `decrypt` raises, and `ValueError` where the payload is not UTF-8.
        """
        return await self._decryption.decrypt_text(text, context, aad)

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

    @guarded
    async def decrypt_many(
        self,
        messages: Iterable[Buffer],
        *,
        context: Pairs = None,
        aads: Sequence[Buffer] | None = None,
        errors: Literal["raise", "return"] = "raise",
    ) -> list[Any]:
        """Return the plaintext of each message, in order; every distinct wrapped key is unwrapped once.

        Always done on a thread. All messages are of one context; `aads` has one for each. `errors="raise"` raises
        the first error in the messages' order, and `errors="return"` puts each error in the place of its message.
        Each error has its message's place in `index`. Raises what `decrypt` raises.
        """
        return await self._decryption.decrypt_many(messages, context, aads, errors, self._session.failed)

    @guarded
    async def decrypt_file(
        self,
        source: PathLike,
        target: PathLike,
        *,
        context: Pairs = None,
        aad: Buffer = b"",
        progress: Progress | None = None,
    ) -> None:
        """Decrypt the file `source` into `target` on a thread; when cancelled it stops, and leaves no target.

        `target` appears whole, once all of it is verified, with permissions 0600. `progress` is called on the
        event loop with the bytes done. Raises what `decrypt` raises, and `OSError`.
        """
        await self._decryption.decrypt_file(source, target, context, aad, progress)

    @guarded
    async def decrypt_stream(
        self, reader: AsyncReader, writer: AsyncWriter, *, context: Pairs = None, aad: Buffer = b""
    ) -> None:
        """Decrypt a message from `reader` into `writer` as it comes; only verified chunks are written.

        Until this returns their end may be missing: use what was written only then. Raises what `decrypt` raises.
        """
        await self._decryption.decrypt_stream(reader, writer, context, aad)

    @guarded
    async def open(self, source: PathLike | BinaryIO, *, context: Pairs = None, aad: Buffer = b"") -> Reader:
        """Return a seekable file of the plaintext in `source`, a path or a seekable file, to be read with `await`.

        A read decrypts and verifies only the chunks that it touches. Raises what `Decryptor.open` raises.
        """
        return await self._decryption.open_file(source, context, aad)

    # --- rewrapping -------------------------------------------------------------------------------

    @guarded
    async def rewrap(self, message: Buffer, *, context: Pairs = None, aad: Buffer = b"") -> bytes:
        """Return the same message for the keys of `encrypt_to` in their current versions; the body is untouched.

        Always done on a thread. `context` and `aad` are those that it was encrypted with, as for
        `kmsbridge.EnvelopeCipher.rewrap`. Raises what `decrypt` and `encrypt` raise.
        """
        return await asyncio.to_thread(self._rewrapping.rewrap, message, context, aad)

    @guarded
    async def rewrap_file(self, path: PathLike, *, context: Pairs = None, aad: Buffer = b"") -> None:
        """Rewrap the message in a file in place, on a thread: only its header is written, where it has the room.

        A crash at any point leaves the file readable. Raises what `rewrap` raises, and `OSError`.
        """
        await asyncio.to_thread(self._rewrapping.rewrap_file, path, context, aad)

    @guarded
    async def needs_rewrap(self, message: Buffer) -> bool:
        """Return whether `message` is for other keys than those of `encrypt_to`, or for other versions of them.

        Always done on a thread, because the keys' versions may have to be asked for. Only the header is looked at.
        Raises `MessageError` for what is no message, and `KmsError`.
        """
        return await asyncio.to_thread(self._rewrapping.needs_rewrap, message)
