"""Encrypting and decrypting in one object, and what needs both: rewrapping."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, BinaryIO, Literal, Unpack, overload

from kmsbridge.atomic import PathLike
from kmsbridge.cipher.arguments import Buffer
from kmsbridge.cipher.base import SyncCipher, driver_session, guarded, make_cipher
from kmsbridge.cipher.decryption import Decryption
from kmsbridge.cipher.decryptor import Decryptor
from kmsbridge.cipher.driver_objects import CipherOptions
from kmsbridge.cipher.encryption import Encryption
from kmsbridge.cipher.encryptor import Encryptor
from kmsbridge.cipher.files import Progress
from kmsbridge.cipher.reading import MessageReader
from kmsbridge.cipher.rewrapping import Rewrapping
from kmsbridge.cipher.session import Session
from kmsbridge.datakeys import Pairs
from kmsbridge.driver import KeyDriver
from kmsbridge.errors import KmsBridgeError, forget_locals


class EnvelopeCipher(SyncCipher):
    """Encrypts, decrypts and rewraps: for the hosts that do both, and for moving between keys.

    It is put together from an `encryptor` and a `decryptor`, each of which may be handed to what must not do the
    other. Safe to share between threads, and to use in forked children. Close it, or use it with `with`.

    Made from a configuration, by `from_config` or `from_uri`, or from driver objects: `encrypt_to` is a list of
    those that wrap every data key, `decrypt_with` of those that are tried in turn, and `options` are `data_keys`,
    `calls`, `audit`, `direct` and `name` (see `CipherOptions`). One object may be in both lists. The objects are
    closed with the cipher, and cannot be used in a forked child: there they raise `ConfigError`. Raises
    `TypeError` for what is no driver, `RoleError` for an empty list.
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
        self._encryption = session.add_part(Encryption)
        self._decryption = session.add_part(Decryption)
        self._rewrapping = session.add_part(
            Rewrapping, self._encryption.data_keys, self._decryption.data_keys
        )
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

    def encrypt(self, plaintext: Buffer, *, context: Pairs = None, aad: Buffer = b"") -> bytes:
        """Return the message that holds `plaintext`, bound to `context` and `aad`.

        Raises what `Encryptor.encrypt` raises: `TypeError` for what is not bytes-like, `ConfigError` or
        `LimitExceeded` for a context that cannot be, `KmsError` where a key could not wrap.
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

    @guarded
    def encrypt_text(self, text: str, *, context: Pairs = None, aad: Buffer = b"") -> str:
        """Return the message that holds `text` in armored form.

        Raises what `encrypt` raises, and `ValueError` for text that cannot be written as UTF-8.
        """
        return self._encryption.encrypt_text(text, context, aad)

    @guarded
    def encrypt_many(
        self, plaintexts: Iterable[Buffer], *, context: Pairs = None, aads: Sequence[Buffer] | None = None
    ) -> list[bytes]:
        """Return a message for each plaintext, all of one context; `aads` has one for each. All or none.

        Raises what `encrypt` raises; an error that an item causes has its place in `index`.
        """
        return self._encryption.encrypt_many(plaintexts, context, aads)

    @guarded
    def encrypt_file(
        self,
        source: PathLike,
        target: PathLike,
        *,
        context: Pairs = None,
        aad: Buffer = b"",
        progress: Progress | None = None,
    ) -> None:
        """Encrypt the file `source` into `target`, which appears whole or not at all; it may be `source`.

        `progress` is called with the bytes done. Raises what `encrypt` raises, `ConfigError` in direct mode,
        and `OSError`.
        """
        self._encryption.encrypt_file(source, target, context, aad, progress)

    @guarded
    def encrypt_stream(
        self,
        reader: BinaryIO,
        writer: BinaryIO,
        *,
        context: Pairs = None,
        aad: Buffer = b"",
        progress: Progress | None = None,
    ) -> None:
        """Encrypt what `reader` holds to its end into `writer`, as it comes.

        `progress` is called with the bytes done. Raises what `encrypt` raises, and `ConfigError` in direct mode.
        """
        self._encryption.encrypt_stream(reader, writer, context, aad, progress)

    # --- decrypting -------------------------------------------------------------------------------

    def decrypt(self, message: Buffer, *, context: Pairs = None, aad: Buffer = b"") -> bytes:
        """Return the plaintext of `message`, once all of it is verified.

        Raises what `Decryptor.decrypt` raises: `MessageError` for what is no message, `AuthenticationError` for a
        wrong context, a wrong aad or changed bytes, `NoMatchingKey`, `KmsError`, `TypeError`.
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

    @guarded
    def decrypt_text(self, text: str, *, context: Pairs = None, aad: Buffer = b"") -> str:
        """Return the text in an armored message; white space around it is ignored.

        Raises what `decrypt` raises, and `ValueError` where the payload is not UTF-8.
        """
        return self._decryption.decrypt_text(text, context, aad)

    @overload
    def decrypt_many(
        self,
        messages: Iterable[Buffer],
        *,
        context: Pairs = ...,
        aads: Sequence[Buffer] | None = ...,
        errors: Literal["raise"] = ...,
    ) -> list[bytes]: ...

    @overload
    def decrypt_many(
        self,
        messages: Iterable[Buffer],
        *,
        context: Pairs = ...,
        aads: Sequence[Buffer] | None = ...,
        errors: Literal["raise", "return"],
    ) -> list[bytes | KmsBridgeError]: ...

    @guarded
    def decrypt_many(
        self,
        messages: Iterable[Buffer],
        *,
        context: Pairs = None,
        aads: Sequence[Buffer] | None = None,
        errors: Literal["raise", "return"] = "raise",
    ) -> list[Any]:
        """Return the plaintext of each message, in order; every distinct wrapped key is unwrapped once.

        All messages are of one context; `aads` has one for each. `errors="raise"` raises the first error in the
        messages' order, and `errors="return"` puts each error in the place of its message. Each error has its
        message's place in `index`. Raises what `decrypt` raises.
        """
        return self._decryption.decrypt_many(messages, context, aads, errors, self._session.failed)

    @guarded
    def decrypt_file(
        self,
        source: PathLike,
        target: PathLike,
        *,
        context: Pairs = None,
        aad: Buffer = b"",
        progress: Progress | None = None,
    ) -> None:
        """Decrypt the file `source` into `target`, which appears whole, once it is verified, with permissions 0600.

        `progress` is called with the bytes done. Raises what `decrypt` raises, and `OSError`.
        """
        self._decryption.decrypt_file(source, target, context, aad, progress)

    @guarded
    def decrypt_stream(
        self,
        reader: BinaryIO,
        writer: BinaryIO,
        *,
        context: Pairs = None,
        aad: Buffer = b"",
        progress: Progress | None = None,
    ) -> None:
        """Decrypt a message from `reader` into `writer` as it comes, chunk by verified chunk.

        Use what was written only when this has returned: until then the end may be missing. `progress` is called
        with the bytes done. Raises what `decrypt` raises.
        """
        self._decryption.decrypt_stream(reader, writer, context, aad, progress)

    @guarded
    def open(self, source: PathLike | BinaryIO, *, context: Pairs = None, aad: Buffer = b"") -> MessageReader:
        """Return a seekable, read-only binary file of the plaintext in `source`, a path or a seekable file.

        A read decrypts and verifies only the chunks that it touches. Raises what `Decryptor.open` raises.
        """
        return self._decryption.open_file(source, context, aad)

    # --- rewrapping -------------------------------------------------------------------------------

    @guarded
    def rewrap(self, message: Buffer, *, context: Pairs = None, aad: Buffer = b"") -> bytes:
        """Return the same message for the keys of `encrypt_to` in their current versions; the body is untouched.

        The context is needed because the key service binds it. The aad is needed for direct messages; with
        others of several recipients it tells which data key is the body's. Without it, recipients that hold
        different data keys are refused, and each that this profile decrypts with is asked for its own.
        Messages of one data key are rewrapped by one call. Raises what `decrypt` and `encrypt` raise.
        """
        return self._rewrapping.rewrap(message, context, aad)

    @guarded
    def rewrap_file(self, path: PathLike, *, context: Pairs = None, aad: Buffer = b"") -> None:
        """Rewrap the message in a file in place: only its header is written, where it has the room.

        A crash at any point leaves the file readable, by the old keys or by the new. Raises what `rewrap`
        raises, and `OSError`.
        """
        self._rewrapping.rewrap_file(path, context, aad)

    @guarded
    def needs_rewrap(self, message: Buffer) -> bool:
        """Return whether `message` is for other keys than those of `encrypt_to`, or for other versions of them.

        Only the header is looked at, so the start of a long message will do. The keys' versions are
        asked for every ten seconds at most. Raises `MessageError` for what is no message, and `KmsError`.
        """
        return self._rewrapping.needs_rewrap(message)
