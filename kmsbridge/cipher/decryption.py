"""How decrypting is done, beneath the public classes, which guard it against tracebacks that show
plaintexts.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import BinaryIO, TypeVar

from kmsbridge import message as wire
from kmsbridge.atomic import PathLike
from kmsbridge.cipher import direct, files, reading
from kmsbridge.cipher.aad import MAX_AAD, Aad, as_aad, one_each
from kmsbridge.cipher.arguments import (
    INLINE,
    Buffer,
    as_bytes,
    at_item,
    bytes_to_text,
    check_each,
    check_text,
)
from kmsbridge.cipher.files import Progress
from kmsbridge.cipher.session import Session
from kmsbridge.datakeys import Pairs
from kmsbridge.datakeys.decryption import DecryptionKeys, KnownKeys
from kmsbridge.datakeys.payload import PayloadReader
from kmsbridge.errors import AuthenticationError, ClosedError, KmsBridgeError, MessageError
from kmsbridge.message import Header, chunk_reader
from kmsbridge.threads import in_parallel

T = TypeVar("T")


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

    def decrypt_many(
        self,
        messages: Iterable[Buffer],
        context: Pairs,
        aads: Sequence[Aad] | None,
        errors: str,
        failed: Callable[[KmsBridgeError, Pairs], None],
    ) -> list[bytes | KmsBridgeError]:
        """Return the plaintext of each message, in order.

        Where `errors` is "return", each error is in the place of its message, and was given to `failed`.
        """
        if errors not in ("raise", "return"):
            raise ValueError('errors must be "raise" or "return"')
        results: list[bytes | KmsBridgeError] = []
        for result in self._outcomes(list(messages), context, aads):
            if isinstance(result, KmsBridgeError):
                at_item(result, len(results))
                if errors == "raise":
                    raise result
                failed(result, context)
            results.append(result)
        return results

    def decrypt_file(
        self, source: PathLike, target: PathLike, context: Pairs, aad: Aad, progress: Progress | None
    ) -> None:
        """Decrypt the file `source` into `target`, which appears whole, once it is verified, or not at
        all.
        """
        aad = as_aad(aad)
        files.decrypt_file(
            lambda header, start: self.body_decryptor(header, start, context, aad),
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

    def _outcomes(
        self, messages: Sequence[Buffer], context: Pairs, aads: Sequence[Aad] | None
    ) -> Iterator[bytes | KmsBridgeError]:
        """Yield the plaintexts in order, or why there is none; every distinct wrapped key is unwrapped once.

        In batches where possible, else in parallel; so are direct payloads.
        """
        check_each(messages, "messages", "decrypt_text")
        aads = one_each(aads, len(messages))
        whole = [bytes(message) for message in messages]
        headers = _headers(whole)
        known = self.data_keys.fetch_many([each for each in headers.values() if not each.is_direct], context)
        payloads = self._direct_payloads(whole, headers, context, aads)
        for number, message in enumerate(whole):
            if number in payloads:
                yield payloads[number]
                continue
            aad = aads[number]
            plaintext = self._decrypt_by_header(message, context, aad)
            if plaintext is not None:
                yield plaintext
                continue
            header = headers.get(_packed(message))
            yield _outcome(functools.partial(self._decrypt, message, context, aad, header, known))

    def _direct_payloads(
        self,
        messages: Sequence[bytes],
        headers: Mapping[bytes, Header],
        context: Pairs,
        aads: Sequence[bytes],
    ) -> dict[int, bytes | KmsBridgeError]:
        """Return the payloads of the direct messages by their places, each by a call, 16 at a time."""

        def payload(number: int) -> bytes | KmsBridgeError:
            return _outcome(lambda: self._decrypt(messages[number], context, aads[number]))

        def is_direct(message: bytes) -> bool:
            header = headers.get(_packed(message))
            return header is not None and header.is_direct

        numbers = [number for number, message in enumerate(messages) if is_direct(message)]
        return dict(zip(numbers, in_parallel(payload, numbers), strict=True))


def _packed(message: bytes) -> bytes:
    """Return the bytes of a message's header, if it is one."""
    return message[: int.from_bytes(message[6:8], "big")]


def _headers(messages: Sequence[bytes]) -> dict[bytes, Header]:
    """Return every distinct header by its bytes, parsed once: it costs more than to decrypt a small body."""
    headers: dict[bytes, Header] = {}
    for message in messages:
        packed = _packed(message)
        if packed not in headers:
            try:
                headers[packed] = wire.parse_header(message)
            except MessageError:
                continue  # told in its place
    return headers


def _outcome(work: Callable[[], T]) -> T | KmsBridgeError:
    try:
        return work()
    except ClosedError:
        raise  # nothing is wrong with the message
    except KmsBridgeError as error:
        return error
