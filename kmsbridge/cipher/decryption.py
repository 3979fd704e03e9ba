"""How decrypting is done, beneath the public classes, which guard it against tracebacks that show
plaintexts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, BinaryIO, Final, NamedTuple

from kmsbridge import message as wire
from kmsbridge.atomic import PathLike
from kmsbridge.cipher import direct, files, many, reading
from kmsbridge.cipher.aad import MAX_AAD, Aad, as_aad, one_each
from kmsbridge.cipher.arguments import (
    INLINE,
    Buffer,
    as_bytes,
    at_item,
    bytes_to_text,
    check_text,
)
from kmsbridge.cipher.files import Progress
from kmsbridge.cipher.many import Group, Value
from kmsbridge.cipher.session import Session
from kmsbridge.context import EncryptionContext
from kmsbridge.datakeys import Pairs
from kmsbridge.datakeys.batches import fetch_many
from kmsbridge.datakeys.decryption import DecryptionKeys, KnownKeys
from kmsbridge.datakeys.payload import PayloadReader
from kmsbridge.errors import AuthenticationError, ClosedError, KmsBridgeError, MessageError
from kmsbridge.message import Header, chunk_reader
from kmsbridge.secretvalue import SecretValue
from kmsbridge.threads import in_parallel

MOST_AT_ONCE: Final = 1000
"""The most messages whose data key is looked at once."""

Outcome = bytes | str | KmsBridgeError | None
"""The result for one of many messages: its plaintext, the error that it ended with, or None for None."""


class Items(NamedTuple):
    """Many messages, the aad of each, and the place for the outcome of each, which has errors known before."""

    messages: list[Any]
    aads: Sequence[bytes]
    outcomes: list[Outcome]


class Batch(NamedTuple):
    """The places of the messages that have one context and one header, which is None where it cannot be parsed."""

    context: EncryptionContext
    packed: bytes
    header: Header | None
    places: list[int]


def binary_of(message: Buffer | str) -> Buffer:
    """Return a message in its binary form. Raises `MalformedMessage` for text that is no armored message."""
    return wire.dearmor(message) if isinstance(message, str) else message


class Decryption:
    """Decrypts with the data keys of one session; what each method raises stands at `Decryptor`.

    The methods block while a key service is called, all but `decrypt_at_hand`. Who must not be blocked tries
    that first, and else has `data_keys` fetch a data key in its own way.
    """

    def __init__(self, session: Session) -> None:
        profile = session.profile
        self.data_keys = DecryptionKeys(
            session.decrypt_with, profile.data_keys, session.observer, profile.calls
        )
        self._at_hand = self.data_keys.at_hand

    def decrypt_at_hand(self, message: Buffer, context: Pairs, aad: Aad) -> bytes | None:
        """Return the plaintext if a data key at hand decrypts the message, of at most `INLINE` bytes.

        No call, no waiting. Else return None.
        """
        if type(message) is not bytes:
            message = as_bytes(message, "message", "decrypt_text")
        if type(aad) is not bytes or len(aad) > MAX_AAD:
            aad = as_aad(aad)
        if len(message) > INLINE:
            return None
        plaintext = self._decrypt_by_header(message, context, aad)
        if plaintext is not None:
            return plaintext
        header = wire.parse(message)
        if not header.has_recipients_data_key:
            return None
        start = header.length
        return self.data_keys.use_fitting_at_hand(
            header,
            context,
            len(message),
            lambda data_key: data_key.decrypt(message, start, aad),
            packed=message[:start],
        )

    def decrypt_text_at_hand(self, text: str, context: Pairs, aad: Aad) -> str | None:
        """Return the text if a data key at hand decrypts the message, as `decrypt_at_hand` does. Else return None."""
        plaintext = self.decrypt_at_hand(wire.dearmor(check_text(text)), context, aad)
        return None if plaintext is None else bytes_to_text(plaintext)

    def decrypt(self, message: Buffer, context: Pairs, aad: Aad) -> bytes:
        """Return the plaintext of `message`, once all of it is verified."""
        if type(message) is not bytes:
            message = as_bytes(message, "message", "decrypt_text")
        if type(aad) is not bytes or len(aad) > MAX_AAD:
            aad = as_aad(aad)
        # `_decrypt_by_header`, written out: one call more is a twentieth of a small message's time.
        start = int.from_bytes(message[6:8], "big")
        data_key = self._at_hand(message[:start], context, len(message))
        if data_key is not None:
            try:
                return data_key.decrypt(message, start, aad)
            except AuthenticationError:
                pass  # another of the message's recipients may hold the data key that fits
        return self._decrypt(message, context, aad)

    def decrypt_text(self, text: str, context: Pairs, aad: Aad) -> str:
        """Return the text in an armored message."""
        return bytes_to_text(self.decrypt(wire.dearmor(check_text(text)), context, aad))

    def decrypt_secret(self, message: Buffer | str, context: Pairs, aad: Aad) -> SecretValue:
        """Return the plaintext of a message, armored or not, as a value that does not show."""
        return SecretValue(self.decrypt(binary_of(message), context, aad))

    def decrypt_many(
        self,
        messages: Iterable[Value],
        context: Pairs,
        contexts: Sequence[Pairs] | None,
        aads: Sequence[Aad] | None,
        errors: str,
        failed: Callable[[KmsBridgeError, Pairs], None],
    ) -> list[Outcome]:
        """Return the plaintext of each message, in order: text for text, None for None.

        Where `errors` is "return", each error is in the place of its message, and was given to `failed`.
        """
        if errors not in ("raise", "return"):
            raise ValueError('errors must be "raise" or "return"')
        values, whole = many.messages_of(messages)
        items = Items(whole, one_each(aads, len(values)), list(whole))
        present = [place for place, message in enumerate(whole) if isinstance(message, bytes)]
        self._decrypt_groups(many.groups_of(present, len(values), context, contexts), items)
        results = items.outcomes
        for place, (value, result) in enumerate(zip(values, results, strict=True)):
            if type(result) is bytes is type(value):
                continue
            if isinstance(value, str) and isinstance(result, bytes):
                result = results[place] = many.text_of(result)  # noqa: PLW2901 - its other form
            if isinstance(result, KmsBridgeError):
                at_item(result, place)
                if errors == "raise":
                    raise result
                failed(result, context if contexts is None else contexts[place])
        return results

    def decrypt_file(
        self, source: PathLike, target: PathLike, context: Pairs, aad: Aad, progress: Progress | None
    ) -> None:
        """Decrypt the file `source` into `target`, which appears whole, once it is verified, or not at
        all.
        """
        aad = as_aad(aad)
        files.decrypt_file(
            lambda header, read_at, size: self._chunks(header, context, aad, read_at, size),
            source,
            target,
            files.Ticker(progress, self.data_keys.check_open),
        )

    def decrypt_stream(
        self, reader: BinaryIO, writer: BinaryIO, context: Pairs, aad: Aad, progress: Progress | None
    ) -> None:
        """Decrypt a message from `reader` into `writer` as it comes, chunk by verified chunk."""
        aad = as_aad(aad)
        header, start = files.read_start(reader)
        decryptor = self.body_decryptor(header, start, context, aad)
        ticker = files.Ticker(progress, self.data_keys.check_open)
        files.decrypt_stream(decryptor, reader, writer, ticker, start)

    def open_file(self, source: PathLike | BinaryIO, context: Pairs, aad: Aad) -> reading.MessageReader:
        """Return a seekable file of the plaintext in `source`."""
        aad = as_aad(aad)
        return reading.open_message(
            source,
            lambda header, read_at, size: self._chunks(header, context, aad, read_at, size),
            self.data_keys.check_open,
        )

    def body_decryptor(
        self, header: Header, start: bytes, context: Pairs, aad: bytes
    ) -> files.StreamDecryptor:
        """Return what decrypts the body of a message that begins with `header` and `start`, as it arrives."""
        if header.is_direct:
            return direct.DirectDecryptor(direct.decrypt(self.data_keys, header, context, aad))
        return self.data_keys.use_fitting(
            header, context, 0, lambda data_key: data_key.body_decryptor(header, start, aad)
        )

    def report(self) -> None:
        """Tell the audit trail how many messages each data key has served since it was last told."""
        self.data_keys.report()

    def close(self) -> None:
        """Report, and drop every data key; may be repeated."""
        self.data_keys.close()

    # --- one message --------------------------------------------------------------------------------

    def _decrypt_by_header(self, message: bytes, context: Pairs, aad: Buffer) -> bytes | None:
        """Return the plaintext if the data key that was last found by these header bytes decrypts it, else
        None.
        """
        start = int.from_bytes(message[6:8], "big")
        data_key = self.data_keys.at_hand(message[:start], context, len(message))
        if data_key is None:
            return None
        try:
            return data_key.decrypt(message, start, aad)
        except AuthenticationError:
            return None  # another of the message's recipients may hold the data key that fits

    def _decrypt(
        self,
        message: bytes,
        context: Pairs,
        aad: Buffer,
        header: Header | None = None,
        known: KnownKeys | None = None,
    ) -> bytes:
        """Return the plaintext of a message that `_decrypt_by_header` did not; `header` and `known` save
        work.
        """
        if header is None:
            header = wire.parse(message)
        else:
            wire.check_body_length(header.kind, len(message) - header.length)
        if header.is_direct:
            return direct.decrypt(self.data_keys, header, context, aad)
        start = header.length
        return self.data_keys.use_fitting(
            header,
            context,
            len(message),
            lambda data_key: data_key.decrypt(message, start, aad),
            packed=message[:start],
            known=known,
        )

    def _chunks(
        self, header: Header, context: Pairs, aad: bytes, read_at: chunk_reader.ReadAt, size: int
    ) -> reading.Chunks:
        if header.is_direct:
            return PayloadReader(direct.decrypt(self.data_keys, header, context, aad))
        return self.data_keys.use_fitting(
            header, context, 0, lambda data_key: data_key.reader(header, read_at, size, aad)
        )

    # --- many messages ------------------------------------------------------------------------------

    def _decrypt_groups(self, groups: Sequence[Group], items: Items) -> None:
        """Decrypt the items of these groups. Every distinct wrapped key is unwrapped once, in batches where
        possible, else in parallel; so are direct payloads.
        """
        batches = [batch for group in groups for batch in _by_header(group, items.messages)]
        wanted = [
            (each.header, each.context) for each in batches if each.header and not each.header.is_direct
        ]
        known = fetch_many(self.data_keys, wanted)
        calls: list[tuple[int, EncryptionContext]] = []
        for batch in batches:
            if batch.header and batch.header.is_direct:
                calls += ((place, batch.context) for place in batch.places)
            else:
                self._decrypt_batch(batch, items, known)
        in_parallel(lambda call: self._decrypt_item(*call, items, None, {}), calls)

    def _decrypt_batch(self, batch: Batch, items: Items, known: KnownKeys) -> None:
        places = batch.places
        while places:
            self.data_keys.check_open()
            data_key = self.data_keys.find(batch.packed, batch.context)
            sizes = [len(items.messages[place]) for place in places[:MOST_AT_ONCE]]
            count = self.data_keys.take_many(data_key, sizes)
            if data_key is None or not count:
                # This finds or loads the data key, which the others will have.
                self._decrypt_item(places[0], batch.context, items, batch.header, known)
                places = places[1:]
                continue
            done, places = places[:count], places[count:]
            plaintexts = data_key.decrypt_many(
                [items.messages[place] for place in done],
                len(batch.packed),
                [items.aads[place] for place in done],
            )
            for place, plaintext in zip(done, plaintexts, strict=True):
                if plaintext is None:  # another of its recipients may hold the data key that fits
                    self._decrypt_item(place, batch.context, items, batch.header, known)
                else:
                    items.outcomes[place] = plaintext

    def _decrypt_item(
        self,
        place: int,
        context: EncryptionContext,
        items: Items,
        header: Header | None,
        known: KnownKeys,
    ) -> None:
        try:
            outcome: Outcome = self._decrypt(items.messages[place], context, items.aads[place], header, known)
        except ClosedError:
            raise  # nothing is wrong with the message
        except KmsBridgeError as error:
            outcome = error
        items.outcomes[place] = outcome


def _by_header(group: Group, messages: Sequence[Any]) -> list[Batch]:
    """Return the group's messages by their headers, each parsed once: it costs more than to decrypt a small body."""
    places: dict[bytes, list[int]] = {}
    same: list[int] = []
    known: bytes | tuple[()] = ()  # nothing begins with an empty tuple
    for place in group.places:
        message = messages[place]
        # What begins with a whole header has that header: its length is in it.
        if not message.startswith(known):
            packed = message[: int.from_bytes(message[6:8], "big")]
            known = packed if len(packed) >= wire.FIXED else ()
            same = places.setdefault(packed, [])
        same.append(place)
    return [Batch(group.context, packed, _parsed(messages[each[0]]), each) for packed, each in places.items()]


def _parsed(message: bytes) -> Header | None:
    try:
        return wire.parse_header(message)
    except MessageError:
        return None  # told for each message in its place
