"""Many messages at once."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from kmsbridge import message as wire
from kmsbridge.cipher import direct, opening
from kmsbridge.cipher.arguments import Buffer, check_each, one_each
from kmsbridge.datakeys import Pairs
from kmsbridge.datakeys.decryption import DecryptionKeys
from kmsbridge.errors import ClosedError, KmsBridgeError, MessageError
from kmsbridge.threads import in_parallel

T = TypeVar("T")

Headers = dict[bytes, wire.Header]


def decrypt(
    keys: DecryptionKeys, messages: Sequence[Buffer], context: Pairs, aads: Sequence[Buffer] | None
) -> Iterator[bytes | KmsBridgeError]:
    """The plaintexts in order, or why there is none; every distinct wrapped key is unwrapped once.

    In batches where possible, else in parallel; so are direct payloads.
    """
    check_each(messages, "messages", "decrypt_text")
    aads = one_each(aads, len(messages))
    whole = [bytes(message) for message in messages]
    headers = _headers(whole)
    inline = [header for header in headers.values() if not header.is_direct]
    known = keys.fetch_many(inline, context)
    payloads = _direct(keys, whole, headers, context, aads)
    for number, message in enumerate(whole):
        if number in payloads:
            yield payloads[number]
            continue
        aad = bytes(aads[number])
        plaintext = opening.decrypt_by_alias(keys, message, context, aad)
        if plaintext is not None:
            yield plaintext
            continue
        anew = functools.partial(
            opening.decrypt_anew, keys, message, context, aad, headers.get(_packed(message)), known
        )
        yield _outcome(anew)


def _packed(message: bytes) -> bytes:
    """The bytes of a message's header, if it is one."""
    return message[: int.from_bytes(message[6:8], "big")]


def _headers(messages: Sequence[bytes]) -> Headers:
    """Every distinct header, parsed once: it costs more than to open a small body."""
    headers: Headers = {}
    for message in messages:
        packed = _packed(message)
        if packed not in headers:
            try:
                headers[packed] = wire.parse_header(message)
            except MessageError:
                continue  # told in its place
    return headers


def _direct(
    keys: DecryptionKeys, messages: Sequence[bytes], headers: Headers, context: Pairs, aads: Sequence[Buffer]
) -> dict[int, bytes | KmsBridgeError]:
    def payload(number: int) -> bytes | KmsBridgeError:
        return _outcome(lambda: direct.decrypt(keys, wire.parse(messages[number]), context, aads[number]))

    def is_direct(message: bytes) -> bool:
        header = headers.get(_packed(message))
        return header is not None and header.is_direct

    numbers = [number for number, message in enumerate(messages) if is_direct(message)]
    return dict(zip(numbers, in_parallel(payload, numbers), strict=True))


def _outcome(work: Callable[[], T]) -> T | KmsBridgeError:
    try:
        return work()
    except ClosedError:
        raise  # nothing is wrong with the message
    except KmsBridgeError as error:
        return error
