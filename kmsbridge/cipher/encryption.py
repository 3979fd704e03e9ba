"""How encrypting is done, beneath the public classes, which guard it against tracebacks that show
plaintexts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Any, BinaryIO, Final, NamedTuple

from kmsbridge import message as wire
from kmsbridge.atomic import PathLike
from kmsbridge.cipher import direct, files, many, writing
from kmsbridge.cipher.aad import MAX_AAD, Aad, as_aad, one_each
from kmsbridge.cipher.arguments import (
    INLINE,
    Buffer,
    at_item,
    check_bytes,
    text_to_bytes,
)
from kmsbridge.cipher.files import Progress
from kmsbridge.cipher.many import Group, Value
from kmsbridge.cipher.pulling import EncryptingReader
from kmsbridge.cipher.session import Session
from kmsbridge.cipher.unfinished import UnfinishedMessage
from kmsbridge.context import EncryptionContext
from kmsbridge.datakeys import DataKey, EncryptionKeys, Pairs
from kmsbridge.errors import ConfigError, KmsBridgeError
from kmsbridge.streams import Readable, Writable, write_all
from kmsbridge.threads import in_parallel

BATCH: Final = 1000
"""The most messages whose data key is looked at once."""


class Items(NamedTuple):
    """Many payloads, the aad of each, and the place for the message of each. A payload that is None has none."""

    payloads: list[Any]
    aads: Sequence[bytes]
    messages: list[bytes]


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

    def encrypt_text_at_hand(self, text: str, context: Pairs, aad: Aad) -> str | None:
        """Return the armored message if its data key is at hand, as `encrypt_at_hand` does. Else return None."""
        message = self.encrypt_at_hand(text_to_bytes(text), context, aad)
        return None if message is None else wire.armor(message)

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
        self,
        plaintexts: Iterable[Value],
        context: Pairs,
        contexts: Sequence[Pairs] | None,
        aads: Sequence[Aad] | None,
    ) -> list[bytes | str | None]:
        """Return a message for each plaintext, in order: text for text, None for None."""
        values, payloads = many.payloads_of(plaintexts)
        every_aad = one_each(aads, len(values))
        present = [place for place, payload in enumerate(payloads) if payload is not None]
        groups = many.groups_of(present, len(values), context, contexts)
        items = Items(payloads, every_aad, [b""] * len(values))
        if self.direct:
            self._encrypt_directly(groups, items)
        else:
            self._encrypt_groups(groups, items)
        return [
            value if value is None else wire.armor(message) if isinstance(value, str) else message
            for value, message in zip(values, items.messages, strict=True)
        ]

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

    def create(self, target: PathLike | Writable, context: Pairs, aad: Aad) -> writing.MessageWriter:
        """Return a file that encrypts what is written to it into `target`, a path or a binary file."""
        return writing.create_message(target, self._unfinished(context, aad))

    def encrypting(self, reader: Readable, context: Pairs, aad: Aad) -> EncryptingReader:
        """Return a file of the message that holds what `reader` gives."""
        return EncryptingReader(reader, self._unfinished(context, aad))

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

    def _unfinished(self, context: Pairs, aad: Aad) -> UnfinishedMessage:
        aad = as_aad(aad)
        return UnfinishedMessage(self._stream_key(context), aad, self.data_keys)

    def _encrypt_groups(self, groups: Sequence[Group], items: Items) -> None:
        """Encrypt the items of these groups. The data keys that are missing are made together."""
        if self.data_keys.shared:
            data_keys = self.data_keys.get_each([group.context for group in groups])
        else:
            groups = [Group(group.context, [place]) for group in groups for place in group.places]
            data_keys = self.data_keys.make_each([group.context for group in groups])
        for group, data_key in zip(groups, data_keys, strict=True):
            if isinstance(data_key, KmsBridgeError):
                raise at_item(data_key, group.places[0])
            self._encrypt_group(group, data_key, items)

    def _encrypt_group(self, group: Group, data_key: DataKey, items: Items) -> None:
        places = group.places
        while places:
            batch = places[:BATCH]
            count = self.data_keys.take_many(data_key, [len(items.payloads[place]) for place in batch])
            if not count:  # its allowance is used up
                try:
                    data_key = self.data_keys.get(group.context, len(items.payloads[batch[0]]))
                except KmsBridgeError as error:
                    raise at_item(error, batch[0]) from None
                count = 1
            done, places = places[:count], places[count:]
            messages = data_key.encrypt_many(
                [items.payloads[place] for place in done], [items.aads[place] for place in done]
            )
            for place, message in zip(done, messages, strict=True):
                items.messages[place] = message

    def _encrypt_directly(self, groups: Sequence[Group], items: Items) -> None:
        """Have the key service wrap each payload, 16 at a time."""

        def encrypt(item: tuple[int, EncryptionContext]) -> None:
            place, context = item
            try:
                items.messages[place] = direct.encrypt(
                    self.data_keys, items.payloads[place], context, items.aads[place]
                )
            except KmsBridgeError as error:
                raise at_item(error, place) from None

        each = [(place, group.context) for group in groups for place in group.places]
        in_parallel(encrypt, sorted(each, key=itemgetter(0)))

    def _stream_key(self, context: Pairs) -> DataKey:
        self.check_may_stream()
        return self.data_keys.get(context, 0)
