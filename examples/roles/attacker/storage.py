"""Rewrites the database in every way that might have a reader take something for a value that it is not."""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import kmsbridge
from examples.roles import customers
from examples.roles.customers import Place, Values
from kmsbridge.message import MAX_RECIPIENTS, Header, Kind, Recipient, inline, parse_header

Read = Callable[[list[int]], dict[str, str]]
"""Has a reader read these customers, and returns what it got for each place."""

_STEP: Final = 5
"""A byte of each so many is changed, in turn of the bit."""


def attack(path: Path, read: Read, victims: int = 2) -> set[str]:
    """Return the places at which a reader took something for a value that it is not.

    Each way is tried on the first customers, as many as `victims`; the others give what is put there.
    """
    before = customers.load(path)
    chosen = sorted({place.id for place in before})[:victims]
    wrong: set[str] = set()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA synchronous = OFF")
        for place, message in _rewritten(before, chosen):
            _put(database, place, message)
            wrong |= _taken(read, before, place.id)
            _put(database, place, before[place])
        for one, other in itertools.product(chosen, {place.id for place in before}):
            if one != other:
                wrong |= _exchanged(database, read, before, (one, other))
    return wrong


def _rewritten(before: Values, ids: list[int]) -> Iterator[tuple[Place, bytes]]:
    """Yield other messages for the places of these customers."""
    for place in (each for each in before if each.id in ids):
        own = before[place]
        yield from ((place, each) for each in _damaged(own))
        for other in (before[each] for each in before if each != place):
            yield place, other
            yield from ((place, each) for each in _spliced(own, other))


def _damaged(message: bytes) -> Iterator[bytes]:
    start = parse_header(message).length
    for end in (0, 1, 7, 8, start - 1, start, start + 12, start + 24, len(message) - 16, len(message) - 1):
        yield message[:end]
    yield message + b"\0"
    yield message + message
    for number, at in enumerate(range(0, len(message), _STEP)):
        changed = bytearray(message)
        changed[at] ^= 1 << number % 8
        yield bytes(changed)


def _spliced(own: bytes, other: bytes) -> Iterator[bytes]:
    """Yield messages put together from two: the header of each with the body of the other, and exchanged parts of headers."""
    mine, theirs = parse_header(own), parse_header(other)
    body = own[mine.length :]
    yield other[: theirs.length] + body
    yield own[: mine.length] + other[theirs.length :]
    yield body
    yield _header(mine, theirs.recipients, mine.commitment) + body
    yield _header(mine, mine.recipients, theirs.commitment) + body
    # The other's wrapped key under the own key's name, and the reverse.
    (one,), (two,) = mine.recipients[:1], theirs.recipients[:1]
    yield _header(mine, (one._replace(wrapped=two.wrapped),), theirs.commitment) + other[theirs.length :]
    yield _header(mine, (two._replace(wrapped=one.wrapped),), mine.commitment) + body
    # Junk recipients before the own one. The value is then read as it is, or not at all.
    junk = tuple(two._replace(key_id=f"{two.key_id}-{number}") for number in range(MAX_RECIPIENTS - 1))
    if len(own) < _STEP * 100:
        yield _header(mine, (*junk, two), theirs.commitment) + body
    # The nonce of the one with the ciphertext of the other.
    yield own[: mine.length + 24] + other[theirs.length + 24 :]
    yield own[: mine.length + 12] + other[theirs.length + 12 :]


def _header(like: Header, recipients: tuple[Recipient, ...], commitment: bytes) -> bytes:
    return inline(recipients, kind=Kind(like.kind), commitment=commitment).encode()


def _exchanged(database: sqlite3.Connection, read: Read, before: Values, pair: tuple[int, int]) -> set[str]:
    """Exchange the tenants of two customers, then their ids."""
    tenants = {place.id: place.tenant for place in before}
    one, other = pair
    wrong = set()
    if tenants[one] != tenants[other]:
        _set_tenant(database, one, tenants[other])
        wrong |= _taken(read, {}, one)  # whatever is read, the tenant who reads it has no right to
        _set_tenant(database, one, tenants[one])
    _exchange_ids(database, one, other)
    wrong |= _taken(read, before, one)
    _exchange_ids(database, one, other)
    return wrong


def _set_tenant(database: sqlite3.Connection, number: int, tenant: str) -> None:
    database.execute("UPDATE customers SET tenant = ? WHERE id = ?", (tenant, number))


def _exchange_ids(database: sqlite3.Connection, one: int, other: int) -> None:
    for old, new in ((one, -1), (other, one), (-1, other)):
        database.execute("UPDATE customers SET id = ? WHERE id = ?", (new, old))


def _put(database: sqlite3.Connection, place: Place, message: bytes) -> None:
    database.execute(f"UPDATE customers SET {place.column} = ? WHERE id = ?", (message, place.id))


def _taken(read: Read, before: Values, number: int) -> set[str]:
    """Return the places of a customer at which something was read that does not belong there."""
    right = {f"{place.id}/{place.column}": customers.plaintext(place).decode() for place in before}
    return {
        name for name, value in read([number]).items() if not _is_error(value) and value != right.get(name)
    }


def _is_error(value: str) -> bool:
    """Return whether a reader gave the name of an error in place of a value."""
    return isinstance(getattr(kmsbridge, value, None), type)
