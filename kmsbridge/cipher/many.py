"""Many messages at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from kmsbridge import body
from kmsbridge import message as wire
from kmsbridge.calls import in_parallel
from kmsbridge.cipher import direct
from kmsbridge.cipher.arguments import Buffer, as_bytes, one_each
from kmsbridge.datakeys import Pairs
from kmsbridge.datakeys.decryption import DecryptionKeys, Outcomes, without_padding
from kmsbridge.errors import AuthenticationError, ClosedError, KmsBridgeError, MessageError

T = TypeVar("T")

Parsed = tuple[bytes, wire.Header]


def decrypt(
    keys: DecryptionKeys, messages: Sequence[Buffer], context: Pairs, aads: Sequence[Buffer] | None
) -> Iterator[bytes | KmsBridgeError]:
    """The plaintexts in order, or why there is none; every distinct wrapped key is unwrapped once.

    In batches where possible, else in parallel; so are direct payloads.
    """
    aads = one_each(aads, len(messages))
    whole = [as_bytes(message, "message", "decrypt_text") for message in messages]
    seen: dict[bytes, Parsed] = {}
    parsed = [_parsed(message, seen) for message in whole]
    entries = keys.get_many(_inline(seen), context)
    payloads = _direct(keys, parsed, context, aads)
    for number, message in enumerate(whole):
        found = parsed[number]
        if isinstance(found, KmsBridgeError):
            yield found
        elif found[1].kind is wire.Kind.DIRECT:
            yield payloads[number]
        else:
            yield _opened(keys, entries, found, message, context, bytes(aads[number]))


def _parsed(message: bytes, seen: dict[bytes, Parsed]) -> Parsed | MessageError:
    """Header bytes without padding, and header; those `seen` are not parsed again: it costs more than to open."""
    start = int.from_bytes(message[6:8], "big")
    found = seen.get(message[:start])
    try:
        if found is None:
            header = without_padding(wire.parse(message))
            found = seen[message[:start]] = (header.encode(), header)
        wire.check_body_length(found[1].kind, len(message) - start)
    except MessageError as error:
        return error
    return found


def _inline(seen: dict[bytes, Parsed]) -> dict[bytes, wire.Header]:
    return {name: header for name, header in seen.values() if header.kind is wire.Kind.INLINE}


def _direct(
    keys: DecryptionKeys,
    parsed: Sequence[Parsed | MessageError],
    context: Pairs,
    aads: Sequence[Buffer],
) -> dict[int, bytes | KmsBridgeError]:
    def payload(number: int) -> bytes | KmsBridgeError:
        found = parsed[number]
        assert not isinstance(found, KmsBridgeError)
        return _outcome(lambda: direct.decrypt(keys, found[1], context, aads[number]))

    numbers = [
        number
        for number, found in enumerate(parsed)
        if not isinstance(found, KmsBridgeError) and found[1].kind is wire.Kind.DIRECT
    ]
    return dict(zip(numbers, in_parallel(payload, numbers), strict=True))


def _opened(
    keys: DecryptionKeys,
    entries: Outcomes,
    found: Parsed,
    message: bytes,
    context: Pairs,
    aad: bytes,
) -> bytes | KmsBridgeError:
    name, header = found
    size = len(message)
    entry = keys.cached(name, context, size) or entries.get(name)
    if entry is None:  # it was at hand before, and is not any more
        entry = entries[name] = _outcome(lambda: keys.get(header, context, size))
    if isinstance(entry, KmsBridgeError):
        return entry
    start = int.from_bytes(message[6:8], "big")
    try:
        return body.open_sealed(entry.key.reveal(), entry.seal_context + aad, memoryview(message)[start:])
    except AuthenticationError as error:
        return error


def _outcome(work: Callable[[], T]) -> T | KmsBridgeError:
    try:
        return work()
    except ClosedError:
        raise  # nothing is wrong with the message
    except KmsBridgeError as error:
        return error
