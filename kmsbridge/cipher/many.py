"""Checks the arguments of the methods for many values, and groups the values by their contexts."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import NamedTuple

from kmsbridge import message as wire
from kmsbridge.cipher.arguments import Buffer, at_item, check_bytes
from kmsbridge.context import EncryptionContext
from kmsbridge.datakeys import Pairs, context_key
from kmsbridge.errors import KmsBridgeError, MalformedMessage, MessageError

Value = Buffer | str | None
"""A value of many: bytes, text, or None, which stands for itself."""


class Group(NamedTuple):
    """The places of the values that have this context."""

    context: EncryptionContext
    places: list[int]


def payloads_of(values: Iterable[Value]) -> tuple[list[Value], list[Buffer | None]]:
    """Return the values, and what is to be encrypted of each: text as UTF-8.

    Raises `TypeError` for a value that is no `Value`, and `ValueError` for text that cannot be written as UTF-8.
    """
    given = _listed(values, "plaintexts")
    return given, [
        value if type(value) is bytes else _payload(value, f"plaintexts[{place}]")
        for place, value in enumerate(given)
    ]


def messages_of(values: Iterable[Value]) -> tuple[list[Value], list[bytes | MessageError | None]]:
    """Return the values, and the message of each: text is the armored form of one, or the error that it is none.

    Raises `TypeError` for a value that is no `Value`.
    """
    given = _listed(values, "messages")
    return given, [
        value if type(value) is bytes else _message(value, f"messages[{place}]")
        for place, value in enumerate(given)
    ]


def groups_of(
    places: Sequence[int], count: int, context: Pairs, contexts: Sequence[Pairs] | None
) -> list[Group]:
    """Return the values at `places`, of `count` in all, in groups of one context each, in order of their first.

    Raises what `EncryptionContext.of` raises, and `TypeError` for both a context and `contexts`, or where those are
    not one for each value.
    """
    if contexts is None:
        return [Group(EncryptionContext.of(context), list(places))] if places else []
    if context is not None:
        raise TypeError("pass context, for all values, or contexts, one for each; not both")
    if isinstance(contexts, (str, bytes, Mapping)) or len(contexts) != count:
        raise TypeError(f"contexts must be a sequence of {count} mappings or None, one for each value")
    groups: dict[Hashable, Group] = {}
    for place in places:
        pairs = contexts[place]
        try:
            group = groups.get(context_key(pairs))
        except (AttributeError, TypeError):
            group = None  # no context at all, as `_context` says in its error
        if group is None:
            group = groups[context_key(pairs)] = Group(_context(pairs, place), [])
        group.places.append(place)
    return list(groups.values())


def _listed(values: Iterable[Value], name: str) -> list[Value]:
    """Return the values. Raises `TypeError` for one value in the place of many, whose signs would be taken for them."""
    if isinstance(values, (str, bytes, bytearray, memoryview)):
        raise TypeError(f"{name} must be an iterable of values, not one {type(values).__name__}")
    return list(values)


def text_of(payload: bytes) -> str | MessageError:
    """Return the text that is UTF-8 in `payload`, or the error that it is none."""
    try:
        return payload.decode()
    except UnicodeDecodeError:
        return MalformedMessage("the payload is not text", remedy="pass this message as bytes")


def _context(pairs: Pairs, place: int) -> EncryptionContext:
    try:
        return EncryptionContext.of(pairs)
    except TypeError as error:
        raise TypeError(f"contexts[{place}]: {error}") from None
    except KmsBridgeError as error:
        raise at_item(error, place) from None


def _payload(value: Value, name: str) -> Buffer | None:
    if value is None:
        return value
    if isinstance(value, str):
        try:
            return value.encode()
        except UnicodeEncodeError:
            # The error that Python makes holds the text itself.
            raise ValueError(f"{name} has unpaired surrogates and cannot be written as UTF-8") from None
    check_bytes(value, name)
    return value


def _message(value: Value, name: str) -> bytes | MessageError | None:
    if value is None:
        return value
    if isinstance(value, str):
        try:
            return wire.dearmor(value)
        except MessageError as error:
            return error
    check_bytes(value, name)
    return bytes(value)
