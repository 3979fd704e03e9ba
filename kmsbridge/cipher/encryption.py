"""How encrypting is done, beneath the public classes, which guard it against tracebacks that show
plaintexts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import BinaryIO

from kmsbridge import message as wire
from kmsbridge.atomic import PathLike
from kmsbridge.cipher import direct, files
from kmsbridge.cipher.aad import MAX_AAD, Aad, as_aad, one_each
from kmsbridge.cipher.arguments import (
    INLINE,
    Buffer,
    at_item,
    check_bytes,
    check_each,
    text_to_bytes,
)
from kmsbridge.cipher.files import Progress
from kmsbridge.cipher.session import Session
from kmsbridge.datakeys import DataKey, EncryptionKeys, Pairs
from kmsbridge.errors import ConfigError, KmsBridgeError
from kmsbridge.streams import write_all


class Encryption:
    """Encrypts with the data keys of one session; what each method raises stands at `Encryptor`.

    The methods block while a key service is called, all but `encrypt_at_hand`. Who must not be blocked tries
    that first, and else gets a data key from `data_keys` in its own way.
    """

    def __init__(self, session: Session) -> None:
        profile = session.profile
        self.direct = profile.direct
        """Whether key services wrap the payloads themselves, so that each message takes a call."""
        self.data_keys = EncryptionKeys(
            session.encrypt_to, profile.data_keys, session.observer, profile.calls
        )
        self._profile_name = profile.name

    def encrypt_at_hand(self, plaintext: Buffer, context: Pairs, aad: Aad) -> bytes | None:
        """Return the message if its data key is at hand and it has at most `INLINE` bytes: no call, no waiting.

        Else return None.
        """
        if type(plaintext) is not bytes:
            check_bytes(plaintext, "plaintext", "encrypt_text")
        if type(aad) is not bytes or len(aad) > MAX_AAD:
            aad = as_aad(aad)
        size = len(plaintext)
        data_key = None if self.direct or size > INLINE else self.data_keys.cached(context, size)
        return None if data_key is None else data_key.encrypt(plaintext, aad)

    def encrypt(self, plaintext: Buffer, context: Pairs, aad: Aad) -> bytes:
        """Return the message that holds `plaintext`."""
        # Not by `encrypt_at_hand`: one call more is a twentieth of a small message's time.
        if type(plaintext) is not bytes:
            check_bytes(plaintext, "plaintext", "encrypt_text")
        if type(aad) is not bytes or len(aad) > MAX_AAD:
            aad = as_aad(aad)
        if self.direct:
            return direct.encrypt(self.data_keys, plaintext, context, aad)
        data_key = self.data_keys.cached(context, len(plaintext))
        if data_key is None:
            data_key = self.data_keys.get(context, len(plaintext))
        return data_key.encrypt(plaintext, aad)

    def encrypt_text(self, text: str, context: Pairs, aad: Aad) -> str:
        """Return the armored message that holds `text` as UTF-8."""
        return wire.armor(self.encrypt(text_to_bytes(text), context, aad))

    def encrypt_many(
        self, plaintexts: Iterable[Buffer], context: Pairs, aads: Sequence[Aad] | None
    ) -> list[bytes]:
        """Return a message for each plaintext, in order."""
        plaintexts = list(plaintexts)
        check_each(plaintexts, "plaintexts", "encrypt_text")
        aads = one_each(aads, len(plaintexts))
        messages: list[bytes] = []
        try:
            for plaintext, aad in zip(plaintexts, aads, strict=True):
                messages.append(self.encrypt(plaintext, context, aad))
        except KmsBridgeError as error:
            at_item(error, len(messages))
            raise
        return messages

    def encrypt_file(
        self, source: PathLike, target: PathLike, context: Pairs, aad: Aad, progress: Progress | None
    ) -> None:
        """Encrypt the file `source` into `target`, which appears whole or not at all."""
        aad = as_aad(aad)
        data_key = self._stream_key(context)
        ticker = files.Ticker(progress, self.data_keys.check_open)
        files.encrypt_file(data_key, aad, source, target, ticker)
        self.data_keys.count(data_key, ticker.done)

    def encrypt_stream(
        self, reader: BinaryIO, writer: BinaryIO, context: Pairs, aad: Aad, progress: Progress | None
    ) -> None:
        """Encrypt what `reader` holds to its end into `writer`."""
        aad = as_aad(aad)
        data_key = self._stream_key(context)
        ticker = files.Ticker(progress, self.data_keys.check_open)
        encryptor = data_key.body_encryptor(aad)
        write_all(writer, data_key.header)
        files.encrypt_stream(encryptor, reader, writer, ticker)
        self.data_keys.count(data_key, ticker.done)

    def check_may_stream(self) -> None:
        """Raise `ConfigError` in direct mode, which has no bodies."""
        if self.direct:
            raise ConfigError(
                f"profile {self._profile_name!r} is direct, which is for whole payloads of a few KiB",
                remedy="use a profile without direct = true for files and streams",
            )

    def report(self) -> None:
        """Tell the audit trail how many messages each data key has served since it was last told."""
        self.data_keys.report()

    def close(self) -> None:
        """Report, and drop every data key; may be repeated."""
        self.data_keys.close()

    def _stream_key(self, context: Pairs) -> DataKey:
        self.check_may_stream()
        return self.data_keys.get(context, 0)
