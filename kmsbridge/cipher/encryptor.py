"""Encrypting."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import BinaryIO

from kmsbridge import message as wire
from kmsbridge.atomic import PathLike
from kmsbridge.cipher import direct, files
from kmsbridge.cipher.arguments import (
    MAX_AAD,
    Buffer,
    as_aad,
    at_item,
    check_aad,
    check_bytes,
    check_each,
    one_each,
    text_to_bytes,
)
from kmsbridge.cipher.files import Progress
from kmsbridge.cipher.opened import Opened, entry_point
from kmsbridge.config import Profile
from kmsbridge.datakeys import DataKey, EncryptionKeys, Pairs
from kmsbridge.errors import ConfigError, KmsBridgeError, RoleError, forget_locals
from kmsbridge.streams import write_all


class Encryptor(Opened):
    """Encrypts, and has no way to decrypt: for the hosts that take data in."""

    _encryption: EncryptionKeys

    def _open_role(self, profile: Profile) -> None:
        if not profile.encrypt_to:
            raise RoleError(
                f"profile {profile.name!r} has no encrypt_to",
                remedy="use another profile, or add encrypt_to",
            )
        keys = self._open_keys(profile.encrypt_to)
        self._encryption = EncryptionKeys(keys, profile.data_keys, self._observer, profile.calls)
        super()._open_role(profile)

    def encrypt(self, plaintext: Buffer, *, context: Pairs = None, aad: Buffer = b"") -> bytes:
        """The message that holds `plaintext`, bound to `context` and `aad`.

        Of a mutable buffer nothing is kept, but it must not change during the call. Raises `TypeError`
        for what is not bytes-like, `ConfigError` or `LimitExceeded` for a context that cannot be, and
        `KmsError` where any of the profile's keys could not wrap the data key.
        """
        # `entry_point`, written out: one call more is a twentieth of a small message's time.
        try:
            try:
                return self._encrypt(plaintext, context, aad)
            except BaseException as error:
                self._failed(error, context)
                raise
        except BaseException as error:
            del plaintext, aad
            forget_locals(error)
            raise

    @entry_point
    def encrypt_text(self, text: str, *, context: Pairs = None, aad: Buffer = b"") -> str:
        """The same for text: the message in armored form, for a text column, JSON, an environment."""
        return wire.armor(self._encrypt(text_to_bytes(text), context, aad))

    @entry_point
    def encrypt_many(
        self, plaintexts: Iterable[Buffer], *, context: Pairs = None, aads: Sequence[Buffer] | None = None
    ) -> list[bytes]:
        """A message for each plaintext, all of one context; `aads` has one for each. All or none.

        An error that an item causes has its place in `index`.
        """
        plaintexts = list(plaintexts)
        check_each(plaintexts, "plaintexts", "encrypt_text")
        aads = one_each(aads, len(plaintexts))
        messages: list[bytes] = []
        try:
            for plaintext, aad in zip(plaintexts, aads, strict=True):
                messages.append(self._encrypt(plaintext, context, aad))
        except KmsBridgeError as error:
            at_item(error, len(messages))
            raise
        return messages

    @entry_point
    def encrypt_file(
        self,
        source: PathLike,
        target: PathLike,
        *,
        context: Pairs = None,
        aad: Buffer = b"",
        progress: Progress | None = None,
    ) -> None:
        """Encrypt the file `source` into `target`, in constant memory.

        `target` appears whole or not at all, and replaces a file of that name; it may be `source`.
        `progress` is called with the bytes done, about ten times a second at most.
        """
        entry = self._stream_key(context, aad)
        ticker = files.Ticker(progress, self._encryption.check_open)
        files.encrypt_file(entry, as_aad(aad), source, target, ticker)
        self._encryption.count(entry, ticker.done)

    @entry_point
    def encrypt_stream(
        self,
        reader: BinaryIO,
        writer: BinaryIO,
        *,
        context: Pairs = None,
        aad: Buffer = b"",
        progress: Progress | None = None,
    ) -> None:
        """Encrypt what `reader` holds to its end into `writer`, as it comes: for pipes and sockets."""
        entry = self._stream_key(context, aad)
        ticker = files.Ticker(progress, self._encryption.check_open)
        encryptor = entry.body_encryptor(as_aad(aad))
        write_all(writer, entry.header)
        files.encrypt_stream(encryptor, reader, writer, ticker)
        self._encryption.count(entry, ticker.done)

    def _report(self) -> None:
        self._encryption.report()
        super()._report()

    def _close_role(self) -> None:
        if hasattr(self, "_encryption"):
            self._encryption.close()
        super()._close_role()

    def _encrypt(self, plaintext: Buffer, context: Pairs, aad: Buffer) -> bytes:
        if type(plaintext) is not bytes:
            check_bytes(plaintext, "plaintext", "encrypt_text")
        if type(aad) is not bytes or len(aad) > MAX_AAD:
            check_aad(aad)
        if self._profile.direct:
            return direct.encrypt(self._encryption, plaintext, context, aad)
        entry = self._encryption.cached(context, len(plaintext))
        if entry is None:
            entry = self._encryption.get(context, len(plaintext))
        return entry.encrypt(plaintext, aad)

    def _stream_key(self, context: Pairs, aad: Buffer) -> DataKey:
        check_aad(aad)
        self._check_no_direct()
        return self._encryption.get(context, 0)

    def _check_no_direct(self) -> None:
        if self._profile.direct:
            raise ConfigError(
                f"profile {self._profile.name!r} is direct, which is for whole payloads of a few KiB",
                remedy="use a profile without direct = true for files and streams",
            )
