"""Encrypting and decrypting in one object, for asyncio, and rewrapping."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, Unpack, overload

from kmsbridge.aio.base import AsyncCipher, guarded
from kmsbridge.aio.decryption import AsyncDecryption
from kmsbridge.aio.decryptor import DecryptMethods, Decryptor
from kmsbridge.aio.encryption import AsyncEncryption
from kmsbridge.aio.encryptor import EncryptMethods, Encryptor
from kmsbridge.atomic import PathLike
from kmsbridge.cipher.aad import Aad
from kmsbridge.cipher.arguments import Buffer
from kmsbridge.cipher.base import driver_session, make_cipher
from kmsbridge.cipher.decryption import Decryption
from kmsbridge.cipher.driver_objects import CipherOptions
from kmsbridge.cipher.encryption import Encryption
from kmsbridge.cipher.many import Value
from kmsbridge.cipher.rewrapping import Rewrapping
from kmsbridge.cipher.session import Session
from kmsbridge.datakeys import Pairs
from kmsbridge.driver import KeyDriver


class EnvelopeCipher(EncryptMethods, DecryptMethods, AsyncCipher):
    """Encrypts, decrypts and rewraps. Made like `kmsbridge.EnvelopeCipher`, from a configuration or driver
    objects.

    It is put together from an `encryptor` and a `decryptor`, each of which may be handed to what must not do
    the other. Tasks may share it, and so may several event loops. Close it by `await close()`, or use it with
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
        """An `Encryptor` over the same keys and data keys. Closing it alone ends encrypting, and nothing
        else.
        """
        return self._encryptor

    @property
    def decryptor(self) -> Decryptor:
        """A `Decryptor` over the same keys and data keys. Closing it alone ends decrypting, and nothing
        else.
        """
        return self._decryptor

    @guarded
    async def rewrap(self, message: Buffer, *, context: Pairs = None, aad: Aad = b"") -> bytes:
        """Return the same message for the keys of `encrypt_to` in their current versions; the body is
        untouched.

        Always done on a thread. `context` and `aad` are those that it was encrypted with, as for
        `kmsbridge.EnvelopeCipher.rewrap`. Raises what `decrypt` and `encrypt` raise.
        """
        return await asyncio.to_thread(self._rewrapping.rewrap, message, context, aad)

    @overload
    async def rewrap_many(
        self,
        messages: Iterable[Buffer],
        *,
        context: Pairs = ...,
        contexts: Sequence[Pairs] | None = ...,
        aads: Sequence[Aad] | None = ...,
    ) -> list[bytes]: ...

    @overload
    async def rewrap_many(
        self,
        messages: Iterable[str],
        *,
        context: Pairs = ...,
        contexts: Sequence[Pairs] | None = ...,
        aads: Sequence[Aad] | None = ...,
    ) -> list[str]: ...

    @overload
    async def rewrap_many(
        self,
        messages: Iterable[Value],
        *,
        context: Pairs = ...,
        contexts: Sequence[Pairs] | None = ...,
        aads: Sequence[Aad] | None = ...,
    ) -> list[Any]: ...

    @guarded
    async def rewrap_many(
        self,
        messages: Iterable[Value],
        *,
        context: Pairs = None,
        contexts: Sequence[Pairs] | None = None,
        aads: Sequence[Aad] | None = None,
    ) -> list[Any]:
        """Return the same messages for the keys of `encrypt_to`, in order: armored ones for those, None for None.

        They are of one `context`, or `contexts` has one for each; `aads` has one for each where they are needed.
        Always done on a thread. Each distinct data key is rewrapped once: by its service where that can, else unwrapped and wrapped again, in the
        provider's batches where it has them. All or none; an error that a message causes has its place in `index`.
        Raises what `rewrap` raises.
        """
        return await asyncio.to_thread(self._rewrapping.rewrap_many, messages, context, contexts, aads)

    @guarded
    async def rewrap_file(self, path: PathLike, *, context: Pairs = None, aad: Aad = b"") -> None:
        """Rewrap the message in a file in place, on a thread: only its header is written, where it has the
        room.

        A crash at any point leaves the file readable. Raises what `rewrap` raises, and `OSError`.
        """
        await asyncio.to_thread(self._rewrapping.rewrap_file, path, context, aad)

    @guarded
    async def needs_rewrap(
        self, message: Buffer, *, verify: bool = False, context: Pairs = None, aad: Aad = b""
    ) -> bool:
        """Return whether `message` is for other keys than those of `encrypt_to`, or for other versions of
        them.

        Always done on a thread, because the keys' versions may have to be asked for. Only the header is
        looked at. With `verify` the services are asked which version wrapped this message's data key, as
        `kmsbridge.EnvelopeCipher` says. Raises what `kmsbridge.EnvelopeCipher` does.
        """
        return await asyncio.to_thread(self._rewrapping.needs_rewrap, message) or (
            verify and await asyncio.to_thread(self._rewrapping.is_outdated, message, context, aad)
        )
