"""Decrypting."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, BinaryIO, Literal, Unpack, overload

from kmsbridge.atomic import PathLike
from kmsbridge.cipher.aad import Aad
from kmsbridge.cipher.arguments import Buffer
from kmsbridge.cipher.base import SyncCipher, driver_session, guarded
from kmsbridge.cipher.decryption import Decryption
from kmsbridge.cipher.driver_objects import CipherOptions
from kmsbridge.cipher.files import Progress
from kmsbridge.cipher.many import Value
from kmsbridge.cipher.reading import MessageReader
from kmsbridge.cipher.session import Session
from kmsbridge.datakeys import Pairs
from kmsbridge.driver import KeyDriver
from kmsbridge.errors import KmsBridgeError, forget_locals
from kmsbridge.secretvalue import SecretValue


class DecryptMethods:
    """The methods of `Decryptor` that decrypt, which `EnvelopeCipher` has as well."""

    _session: Session
    _decryption: Decryption

    def decrypt(self, message: Buffer, *, context: Pairs = None, aad: Aad = b"") -> bytes:
        """Return the plaintext of `message`, once all of it is verified.

        Raises `MessageError` for what is no message, `AuthenticationError` for a wrong context, a
        wrong aad or changed bytes, `NoMatchingKey` where the message is for other keys, `KmsError`
        where a key service could not or would not unwrap, `TypeError` for what is not bytes-like.
        """
        # `guarded`, written out: one call more is a twentieth of a small message's time.
        try:
            try:
                return self._decryption.decrypt(message, context, aad)
            except BaseException as error:
                self._session.failed(error, context)
                raise
        except BaseException as error:
            del message, aad
            forget_locals(error)
            raise

    def decrypt_text(self, text: str, *, context: Pairs = None, aad: Aad = b"") -> str:
        """Return the text in an armored message; white space around it is ignored.

        Raises what `decrypt` raises; a payload that is not UTF-8 was not made by `encrypt_text` and is
        a `ValueError`.
        """
        # `guarded`, written out, as in `decrypt`.
        try:
            try:
                return self._decryption.decrypt_text(text, context, aad)
            except BaseException as error:
                self._session.failed(error, context)
                raise
        except BaseException as error:
            del text, aad
            forget_locals(error)
            raise

    @guarded
    def decrypt_secret(self, message: Buffer | str, *, context: Pairs = None, aad: Aad = b"") -> SecretValue:
        """Return the plaintext of `message`, bytes or armored text, as a value that shows nowhere by accident.

        For passwords and tokens. Use it with `with`, so that the plaintext is let go of at the end. Raises what
        `decrypt` raises.
        """
        return self._decryption.decrypt_secret(message, context, aad)

    @overload
    def decrypt_many(
        self,
        messages: Iterable[Buffer],
        *,
        context: Pairs = ...,
        contexts: Sequence[Pairs] | None = ...,
        aads: Sequence[Aad] | None = ...,
        errors: Literal["raise"] = ...,
    ) -> list[bytes]: ...

    @overload
    def decrypt_many(
        self,
        messages: Iterable[Buffer],
        *,
        context: Pairs = ...,
        contexts: Sequence[Pairs] | None = ...,
        aads: Sequence[Aad] | None = ...,
        errors: Literal["raise", "return"],
    ) -> list[bytes | KmsBridgeError]: ...

    @overload
    def decrypt_many(
        self,
        messages: Iterable[str],
        *,
        context: Pairs = ...,
        contexts: Sequence[Pairs] | None = ...,
        aads: Sequence[Aad] | None = ...,
        errors: Literal["raise"] = ...,
    ) -> list[str]: ...

    @overload
    def decrypt_many(
        self,
        messages: Iterable[str],
        *,
        context: Pairs = ...,
        contexts: Sequence[Pairs] | None = ...,
        aads: Sequence[Aad] | None = ...,
        errors: Literal["raise", "return"],
    ) -> list[str | KmsBridgeError]: ...

    @overload
    def decrypt_many(
        self,
        messages: Iterable[Value],
        *,
        context: Pairs = ...,
        contexts: Sequence[Pairs] | None = ...,
        aads: Sequence[Aad] | None = ...,
        errors: Literal["raise", "return"] = ...,
    ) -> list[Any]: ...

    @guarded
    def decrypt_many(
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
        is unwrapped once, in the provider's batches where it has them, else at most 16 at a time.

        `errors="raise"` raises the first error in the messages' order; `errors="return"` puts each error in the place
        of its message and loses none of the others. Each error has its message's place in `index`. Raises what
        `decrypt` raises, and `MalformedMessage` for an armored message whose payload is no text.
        """
        return self._decryption.decrypt_many(messages, context, contexts, aads, errors, self._session.failed)

    @guarded
    def decrypt_file(
        self,
        source: PathLike,
        target: PathLike,
        *,
        context: Pairs = None,
        aad: Aad = b"",
        progress: Progress | None = None,
    ) -> None:
        """Decrypt the file `source` into `target`, in constant memory, with permissions 0600.

        `target` appears whole, once all of it is verified, or not at all. `progress` is called with the bytes
        done, about ten times a second at most. Raises what `decrypt` raises, and `OSError`.
        """
        self._decryption.decrypt_file(source, target, context, aad, progress)

    @guarded
    def decrypt_stream(
        self,
        reader: BinaryIO,
        writer: BinaryIO,
        *,
        context: Pairs = None,
        aad: Aad = b"",
        progress: Progress | None = None,
    ) -> None:
        """Decrypt a message from `reader` into `writer` as it comes.

        Only verified chunks are written, but until this returns their end may be missing: use what was
        written only then. `progress` is called with the bytes done, about ten times a second at most. Raises
        what `decrypt` raises.
        """
        self._decryption.decrypt_stream(reader, writer, context, aad, progress)

    @guarded
    def open(self, source: PathLike | BinaryIO, *, context: Pairs = None, aad: Aad = b"") -> MessageReader:
        """Return a seekable, read-only binary file of the plaintext in `source`, a path or a seekable file.

        Only the chunks that a read touches are read and decrypted, each verified. A file that was passed in
        is left open. Raises what `decrypt` raises, `OSError`, and `TypeError` for a file that cannot seek.
        """
        return self._decryption.open_file(source, context, aad)


class Decryptor(DecryptMethods, SyncCipher):
    """Decrypts, and has no way to encrypt: for the hosts that work on the data.

    Safe to share between threads, and to use in forked children. Close it, or use it with `with`.

    Made from a configuration, by `from_config` or `from_uri`, or from driver objects: `decrypt_with` is a
    list of them, tried in this order, and `options` are `data_keys`, `calls`, `audit` and `name` (see
    `CipherOptions`). The objects are closed with the decryptor, and cannot be used in a forked child: there
    they raise `ConfigError`. Raises `TypeError` for what is no driver, `RoleError` for an empty list.
    """

    _uses = ("decrypt_with",)

    def __init__(self, *, decrypt_with: Sequence[KeyDriver], **options: Unpack[CipherOptions]) -> None:
        self._begin(driver_session(options, decrypt_with=decrypt_with))

    def _begin(self, session: Session, decryption: Decryption | None = None) -> None:
        self._session = session
        self._decryption = decryption or session.add_part(Decryption)
        self._closes = decryption or session
