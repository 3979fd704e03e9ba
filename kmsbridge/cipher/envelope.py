"""Encrypting and decrypting in one object, and what needs both: rewrapping."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Unpack, overload

from kmsbridge.atomic import PathLike
from kmsbridge.cipher.aad import Aad
from kmsbridge.cipher.arguments import Buffer
from kmsbridge.cipher.base import SyncCipher, driver_session, guarded, make_cipher
from kmsbridge.cipher.decryption import Decryption
from kmsbridge.cipher.decryptor import DecryptMethods, Decryptor
from kmsbridge.cipher.driver_objects import CipherOptions
from kmsbridge.cipher.encryption import Encryption
from kmsbridge.cipher.encryptor import EncryptMethods, Encryptor
from kmsbridge.cipher.many import Value
from kmsbridge.cipher.rewrapping import Rewrapping
from kmsbridge.cipher.session import Session
from kmsbridge.datakeys import Pairs
from kmsbridge.driver import KeyDriver


class EnvelopeCipher(EncryptMethods, DecryptMethods, SyncCipher):
    """Encrypts, decrypts and rewraps: for the hosts that do both, and for moving between keys.

    It is put together from an `encryptor` and a `decryptor`, each of which may be handed to what must not do
    the other. Safe to share between threads, and to use in forked children. Close it, or use it with `with`.

    Made from a configuration, by `from_config` or `from_uri`, or from driver objects: `encrypt_to` is a list
    of those that wrap every data key, `decrypt_with` of those that are tried in turn, and `options` are
    `data_keys`, `calls`, `audit`, `direct` and `name` (see `CipherOptions`). One object may be in both lists.
    The objects are closed with the cipher, and cannot be used in a forked child: there they raise
    `ConfigError`. Raises `TypeError` for what is no driver, `RoleError` for an empty list.
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
    def rewrap(self, message: Buffer, *, context: Pairs = None, aad: Aad = b"") -> bytes:
        """Return the same message for the keys of `encrypt_to` in their current versions; the body is
        untouched.

        The context is needed because the key service binds it. The aad is needed for direct messages; with
        others of several recipients it tells which data key is the body's. Without it, recipients that hold
        different data keys are refused, and each that this profile decrypts with is asked for its own.
        Messages of one data key are rewrapped by one call. Raises what `decrypt` and `encrypt` raise.
        """
        return self._rewrapping.rewrap(message, context, aad)

    @overload
    def rewrap_many(
        self,
        messages: Iterable[Buffer],
        *,
        context: Pairs = ...,
        contexts: Sequence[Pairs] | None = ...,
        aads: Sequence[Aad] | None = ...,
    ) -> list[bytes]: ...

    @overload
    def rewrap_many(
        self,
        messages: Iterable[str],
        *,
        context: Pairs = ...,
        contexts: Sequence[Pairs] | None = ...,
        aads: Sequence[Aad] | None = ...,
    ) -> list[str]: ...

    @overload
    def rewrap_many(
        self,
        messages: Iterable[Value],
        *,
        context: Pairs = ...,
        contexts: Sequence[Pairs] | None = ...,
        aads: Sequence[Aad] | None = ...,
    ) -> list[Any]: ...

    @guarded
    def rewrap_many(
        self,
        messages: Iterable[Value],
        *,
        context: Pairs = None,
        contexts: Sequence[Pairs] | None = None,
        aads: Sequence[Aad] | None = None,
    ) -> list[Any]:
        """Return the same messages for the keys of `encrypt_to`, in order: armored ones for those, None for None.

        They are of one `context`, or `contexts` has one for each; `aads` has one for each where they are needed.
        Each distinct data key is rewrapped once: by its service where that can, else unwrapped and wrapped again, in the
        provider's batches where it has them. All or none; an error that a message causes has its place in `index`.
        Raises what `rewrap` raises.
        """
        return self._rewrapping.rewrap_many(messages, context, contexts, aads)

    @guarded
    def rewrap_file(self, path: PathLike, *, context: Pairs = None, aad: Aad = b"") -> None:
        """Rewrap the message in a file in place: only its header is written, where it has the room.

        A crash at any point leaves the file readable, by the old keys or by the new. Raises what `rewrap`
        raises, and `OSError`.
        """
        self._rewrapping.rewrap_file(path, context, aad)

    @guarded
    def needs_rewrap(
        self, message: Buffer, *, verify: bool = False, context: Pairs = None, aad: Aad = b""
    ) -> bool:
        """Return whether `message` is for other keys than those of `encrypt_to`, or for other versions of
        them.

        Only the header is looked at, so the start of a long message will do. The keys' versions are asked for
        every ten seconds at most. With `verify` the services of the keys are asked which version wrapped this message's
        data key, whatever the message says: a call for each key, for which `context` is needed, and for a direct
        message `aad`. Raises `MessageError` for what is no message, and `KmsError`; with `verify` also
        `AuthenticationError` and `NoMatchingKey`.
        """
        return self._rewrapping.needs_rewrap(message) or (
            verify and self._rewrapping.is_outdated(message, context, aad)
        )
