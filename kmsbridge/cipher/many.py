"""Many messages at once."""

from __future__ import annotations

from collections.abc import Sequence

from kmsbridge import body
from kmsbridge import message as wire
from kmsbridge.cipher import direct
from kmsbridge.cipher.arguments import Buffer, as_bytes, check_bytes
from kmsbridge.datakeys import CachedKey, DecryptionKeys, Pairs, without_padding


def one_each(aads: Sequence[Buffer] | None, count: int) -> Sequence[Buffer]:
    """`aads`, or as many empty ones. Raises `TypeError` where they are not one for each."""
    if aads is None:
        return [b""] * count
    if isinstance(aads, (str, bytes, bytearray, memoryview)) or len(aads) != count:
        raise TypeError(f"aads must be a sequence of {count} bytes-like values, one for each")
    for aad in aads:
        check_bytes(aad, "aad")
    return aads


def decrypt(
    keys: DecryptionKeys, messages: Sequence[Buffer], context: Pairs, aads: Sequence[Buffer] | None
) -> list[bytes]:
    """The plaintexts in order; every distinct wrapped key is unwrapped once, in batches where possible."""
    aads = one_each(aads, len(messages))
    whole = [as_bytes(message, "message", "decrypt_text") for message in messages]
    seen: dict[bytes, tuple[bytes, wire.Header]] = {}
    headers = [_header(message, seen) for message in whole]
    distinct = {name: header for name, header in seen.values() if header.kind is wire.Kind.INLINE}
    entries = keys.get_many(distinct, context)
    return [
        _open(keys, entries, name, header, message, context, bytes(aad))
        for (name, header), message, aad in zip(headers, whole, aads, strict=True)
    ]


def _header(message: bytes, seen: dict[bytes, tuple[bytes, wire.Header]]) -> tuple[bytes, wire.Header]:
    """Its bytes without padding, and the header; those `seen` are not parsed again: it costs more than to open."""
    start = int.from_bytes(message[6:8], "big")
    found = seen.get(message[:start])
    if found is None:
        header = without_padding(wire.parse(message))
        found = seen[message[:start]] = (header.encode(), header)
    wire.check_body_length(found[1].kind, len(message) - start)
    return found


def _open(
    keys: DecryptionKeys,
    entries: dict[bytes, CachedKey],
    name: bytes,
    header: wire.Header,
    message: bytes,
    context: Pairs,
    aad: bytes,
) -> bytes:
    if header.kind is wire.Kind.DIRECT:
        return direct.decrypt(keys, header, context, aad)
    size = len(message)
    entry = keys.cached(name, context, size) or entries.get(name)
    if entry is None:
        entry = entries[name] = keys.get(header, context, size)
    start = int.from_bytes(message[6:8], "big")
    return body.open_sealed(entry.key.reveal(), entry.seal_context + aad, memoryview(message)[start:])
