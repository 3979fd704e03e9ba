"""Encrypting."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, BinaryIO, Unpack, overload

from kmsbridge.atomic import PathLike
from kmsbridge.cipher.aad import Aad
from kmsbridge.cipher.arguments import Buffer
from kmsbridge.cipher.base import SyncCipher, driver_session, guarded
from kmsbridge.cipher.driver_objects import CipherOptions
from kmsbridge.cipher.encryption import Encryption
from kmsbridge.cipher.files import Progress
from kmsbridge.cipher.many import Value
from kmsbridge.cipher.pulling import EncryptingReader
from kmsbridge.cipher.session import Session
from kmsbridge.cipher.writing import MessageWriter
from kmsbridge.datakeys import Pairs
from kmsbridge.driver import KeyDriver
from kmsbridge.errors import forget_locals
from kmsbridge.streams import Readable, Writable


class EncryptMethods:
    """The methods of `Encryptor` that encrypt, which `EnvelopeCipher` has as well."""

    _session: Session
    _encryption: Encryption

    def encrypt(self, plaintext: Buffer, *, context: Pairs = None, aad: Aad = b"") -> bytes:
        """Return the message that holds `plaintext`, bound to `context` and `aad`.

        Of a mutable buffer nothing is kept, but it must not change during the call. Raises `TypeError`
        for what is not bytes-like, `ConfigError` or `LimitExceeded` for a context that cannot be, and
        `KmsError` where any of the profile's keys could not wrap the data key.
        """
        # `guarded`, written out: one call more is a twentieth of a small message's time.
        try:
            try:
                return self._encryption.encrypt(plaintext, context, aad)
            except BaseException as error:
                self._session.failed(error, context)
                raise
        except BaseException as error:
            del plaintext, aad
            forget_locals(error)
            raise

    def encrypt_text(self, text: str, *, context: Pairs = None, aad: Aad = b"") -> str:
        """Return the message that holds `text` in armored form: for a text column, JSON, an environment.

        Raises what `encrypt` raises, and `ValueError` for text that cannot be written as UTF-8.
        """
        # `guarded`, written out, as in `encrypt`.
        try:
            try:
                return self._encryption.encrypt_text(text, context, aad)
            except BaseException as error:
                self._session.failed(error, context)
                raise
        except BaseException as error:
            del text, aad
            forget_locals(error)
            raise

    @overload
    def encrypt_many(
        self,
        plaintexts: Iterable[Buffer],
        *,
        context: Pairs = ...,
        contexts: Sequence[Pairs] | None = ...,
        aads: Sequence[Aad] | None = ...,
    ) -> list[bytes]: ...

    @overload
    def encrypt_many(
        self,
        plaintexts: Iterable[str],
        *,
        context: Pairs = ...,
        contexts: Sequence[Pairs] | None = ...,
        aads: Sequence[Aad] | None = ...,
    ) -> list[str]: ...

    @overload
    def encrypt_many(
        self,
        plaintexts: Iterable[Value],
        *,
        context: Pairs = ...,
        contexts: Sequence[Pairs] | None = ...,
        aads: Sequence[Aad] | None = ...,
    ) -> list[Any]: ...

    @guarded
    def encrypt_many(
        self,
        plaintexts: Iterable[Value],
        *,
        context: Pairs = None,
        contexts: Sequence[Pairs] | None = None,
        aads: Sequence[Aad] | None = None,
    ) -> list[Any]:
        """Return a message for each plaintext, in order: an armored one for text, and None for None. All or none.

        They are of one `context`, or `contexts` has one for each; `aads` has one for each. The data keys that are
        missing are wrapped in the provider's batches where it has them, else at most 16 at a time. Raises what
        `encrypt` and `encrypt_text` raise; an error that an item causes has its place in `index`.
        """
        return self._encryption.encrypt_many(plaintexts, context, contexts, aads)

    @guarded
    def encrypt_file(
        self,
        source: PathLike,
        target: PathLike,
        *,
        context: Pairs = None,
        aad: Aad = b"",
        progress: Progress | None = None,
    ) -> None:
        """Encrypt the file `source` into `target`, in constant memory.

        `target` appears whole or not at all, and replaces a file of that name; it may be `source`.
        `progress` is called with the bytes done, about ten times a second at most. Raises what `encrypt`
        raises, `ConfigError` in direct mode, and `OSError`.
        """
        self._encryption.encrypt_file(source, target, context, aad, progress)

    @guarded
    def encrypt_stream(
        self,
        reader: BinaryIO,
        writer: BinaryIO,
        *,
        context: Pairs = None,
        aad: Aad = b"",
        progress: Progress | None = None,
    ) -> None:
        """Encrypt what `reader` holds to its end into `writer`, as it comes: for pipes and sockets.

        `progress` is called with the bytes done, about ten times a second at most. Raises what `encrypt`
        raises, and `ConfigError` in direct mode.
        """
        self._encryption.encrypt_stream(reader, writer, context, aad, progress)

    @guarded
    def create(self, target: PathLike | Writable, *, context: Pairs = None, aad: Aad = b"") -> MessageWriter:
        """Return a binary file that encrypts what is written to it into `target`, a path or a binary file.

        Use it with `with`. A path appears whole when the block ends, and not at all where that is by an
        exception. A file that is passed in is written as it comes and left open; after an exception its
        message has no end, so that every reader refuses it. Raises what `encrypt` raises, `ConfigError` in
        direct mode, and `OSError`.
        """
        return self._encryption.create(target, context, aad)

    @guarded
    def encrypting(self, reader: Readable, *, context: Pairs = None, aad: Aad = b"") -> EncryptingReader:
        """Return a binary file to read the message from that holds what `reader` gives, encrypted meanwhile.

        For what takes a file and reads it, such as an upload. `reader` is read as the result is, and left
        open. Raises what `encrypt` raises, and `ConfigError` in direct mode.
        """
        return self._encryption.encrypting(reader, context, aad)


class Encryptor(EncryptMethods, SyncCipher):
    """Encrypts, and has no way to decrypt: for the hosts that take data in.

    Safe to share between threads, and to use in forked children. Close it, or use it with `with`.

    Made from a configuration, by `from_config` or `from_uri`, or from driver objects: `encrypt_to` is a list
    of them, each of which wraps every data key, and `options` are `data_keys`, `calls`, `audit`, `direct` and
    `name` (see `CipherOptions`). The objects are closed with the encryptor, and cannot be used in a forked
    child: there they raise `ConfigError`. Raises `TypeError` for what is no driver, `RoleError` for an empty
    list.
    """

    _uses = ("encrypt_to",)

    def __init__(self, *, encrypt_to: Sequence[KeyDriver], **options: Unpack[CipherOptions]) -> None:
        self._begin(driver_session(options, encrypt_to=encrypt_to))

    def _begin(self, session: Session, encryption: Encryption | None = None) -> None:
        self._session = session
        self._encryption = encryption or session.add_part(Encryption)
        self._closes = encryption or session
