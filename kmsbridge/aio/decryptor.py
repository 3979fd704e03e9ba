"""Decrypting, for asyncio."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, BinaryIO, Literal, Unpack, overload

from kmsbridge.aio.base import AsyncCipher, guarded
from kmsbridge.aio.decryption import AsyncDecryption
from kmsbridge.aio.reader import Reader
from kmsbridge.aio.streams import AsyncReader, AsyncWriter
from kmsbridge.atomic import PathLike
from kmsbridge.cipher.aad import Aad
from kmsbridge.cipher.arguments import Buffer
from kmsbridge.cipher.base import driver_session
from kmsbridge.cipher.decryption import Decryption
from kmsbridge.cipher.driver_objects import CipherOptions
from kmsbridge.cipher.files import Progress
from kmsbridge.cipher.many import Value
from kmsbridge.cipher.session import Session
from kmsbridge.datakeys import Pairs
from kmsbridge.driver import KeyDriver
from kmsbridge.errors import KmsBridgeError, forget_locals
from kmsbridge.secretvalue import SecretValue


class DecryptMethods:
    """The methods of `Decryptor` that decrypt, which `EnvelopeCipher` has as well."""

    _session: Session
    _decryption: AsyncDecryption

    async def decrypt(self, message: Buffer, *, context: Pairs = None, aad: Aad = b"") -> bytes:
        """Return the plaintext of `message`, once all of it is verified.

        Up to 1 MiB, and with the data key at hand, it is done at once, without a thread. Raises
        `MessageError` for what is no message, `AuthenticationError` for a wrong context, a wrong aad or
        changed bytes, `NoMatchingKey` where the message is for other keys, `KmsError` where a key service
        could not or would not unwrap, and `TypeError` for what is not bytes-like.
        """
        # `guarded`, written out: one call more is a twentieth of a small message's time.
        try:
            try:
                # Without a coroutine where there is nothing to wait for. No variable has the plaintext, since an
                # interrupt would show it; an empty one is decrypted twice.
                return self._decryption.decrypt_at_hand(
                    message, context, aad
                ) or await self._decryption.decrypt(message, context, aad)
            except BaseException as error:
                self._session.failed(error, context)
                raise
        except BaseException as error:
            del message, aad
            forget_locals(error)
            raise

    async def decrypt_text(self, text: str, *, context: Pairs = None, aad: Aad = b"") -> str:
        """Return the text in an armored message; white space around it is ignored.

        Raises what `decrypt` raises, and `ValueError` where the payload is not UTF-8.
        """
        try:
            try:  # as in `decrypt`
                return self._decryption.decrypt_text_at_hand(
                    text, context, aad
                ) or await self._decryption.decrypt_text(text, context, aad)
            except BaseException as error:
                self._session.failed(error, context)
                raise
        except BaseException as error:
            del text, aad
            forget_locals(error)
            raise

    @guarded
    async def decrypt_secret(
        self, message: Buffer | str, *, context: Pairs = None, aad: Aad = b""
    ) -> SecretValue:
        """Return the plaintext of `message`, bytes or armored text, as a value that shows nowhere by accident.

        The value itself is used without `await`, with `with`. Raises what `decrypt` raises.
        """
        return await self._decryption.decrypt_secret(message, context, aad)

    @overload
    async def decrypt_many(
        self,
        messages: Iterable[Buffer],
        *,
        context: Pairs = ...,
        contexts: Sequence[Pairs] | None = ...,
        aads: Sequence[Aad] | None = ...,
        errors: Literal["raise"] = ...,
    ) -> list[bytes]: ...

    @overload
    async def decrypt_many(
        self,
        messages: Iterable[Buffer],
        *,
        context: Pairs = ...,
        contexts: Sequence[Pairs] | None = ...,
        aads: Sequence[Aad] | None = ...,
        errors: Literal["raise", "return"],
    ) -> list[bytes | KmsBridgeError]: ...

    @overload
    async def decrypt_many(
        self,
        messages: Iterable[str],
        *,
        context: Pairs = ...,
        contexts: Sequence[Pairs] | None = ...,
        aads: Sequence[Aad] | None = ...,
        errors: Literal["raise"] = ...,
    ) -> list[str]: ...

    @overload
    async def decrypt_many(
        self,
        messages: Iterable[str],
        *,
        context: Pairs = ...,
        contexts: Sequence[Pairs] | None = ...,
        aads: Sequence[Aad] | None = ...,
        errors: Literal["raise", "return"],
    ) -> list[str | KmsBridgeError]: ...

    @overload
    async def decrypt_many(
        self,
        messages: Iterable[Value],
        *,
        context: Pairs = ...,
        contexts: Sequence[Pairs] | None = ...,
        aads: Sequence[Aad] | None = ...,
        errors: Literal["raise", "return"] = ...,
    ) -> list[Any]: ...

    @guarded
    async def decrypt_many(
        self,
        messages: Iterable[Value],
        *,
        context: Pairs = None,
        contexts: Sequence[Pairs] | None = None,
        aads: Sequence[Aad] | None = None,
        errors: Literal["raise", "return"] = "raise",
    ) -> list[Any]:
        """Return the plaintext of each message, in order: text for an armored one, and None for None.

        They are of one `context`, or `contexts` has one for each; `aads` has one for each. Every distinct wrapped key
        is unwrapped once. Always done on a thread.

        `errors="raise"` raises the first error in the messages' order; `errors="return"` puts each error in the place
        of its message and loses none of the others. Each error has its message's place in `index`. Raises what
        `decrypt` raises, and `MalformedMessage` for an armored message whose payload is no text.
        """
        return await self._decryption.decrypt_many(
            messages, context, contexts, aads, errors, self._session.failed
        )

    @guarded
    async def decrypt_file(
        self,
        source: PathLike,
        target: PathLike,
        *,
        context: Pairs = None,
        aad: Aad = b"",
        progress: Progress | None = None,
    ) -> None:
        """Decrypt the file `source` into `target` on a thread, in constant memory, with permissions 0600.

        `target` appears whole, once all of it is verified, or not at all, also when the task is cancelled.
        `progress` is called on the event loop with the bytes done. Raises what `decrypt` raises, and
        `OSError`.
        """
        await self._decryption.decrypt_file(source, target, context, aad, progress)

    @guarded
    async def decrypt_stream(
        self, reader: AsyncReader, writer: AsyncWriter, *, context: Pairs = None, aad: Aad = b""
    ) -> None:
        """Decrypt a message from `reader` into `writer` as it comes; only verified chunks are written.

        Until this returns their end may be missing: use what was written only then. Raises what `decrypt`
        raises.
        """
        await self._decryption.decrypt_stream(reader, writer, context, aad)

    @guarded
    async def open(self, source: PathLike | BinaryIO, *, context: Pairs = None, aad: Aad = b"") -> Reader:
        """Return a seekable file of the plaintext in `source`, a path or a seekable file, to be read with
        `await`.

        A read decrypts and verifies only the chunks that it touches. A file that was passed in is left open.
        Raises what `decrypt` raises, `OSError`, and `TypeError` for a file that cannot seek.
        """
        return await self._decryption.open_file(source, context, aad)


class Decryptor(DecryptMethods, AsyncCipher):
    """Decrypts, and has no way to encrypt. Made like `kmsbridge.Decryptor`, from a configuration or driver
    objects.

    Tasks may share it, and so may several event loops. Close it by `await close()`, or use it with `async
    with`.
    """

    _uses = ("decrypt_with",)

    def __init__(self, *, decrypt_with: Sequence[KeyDriver], **options: Unpack[CipherOptions]) -> None:
        self._begin(driver_session(options, decrypt_with=decrypt_with))

    def _begin(self, session: Session, decryption: AsyncDecryption | None = None) -> None:
        self._session = session
        self._decryption = decryption or AsyncDecryption(session.add_part(Decryption))
        self._closes = decryption.core if decryption else session
