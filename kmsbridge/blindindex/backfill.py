"""Finds the rows whose blind index is missing or was made with another key, and computes it anew."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from kmsbridge.blindindex.index import BlindIndex
from kmsbridge.cipher import Decryptor, EnvelopeCipher
from kmsbridge.cipher.aad import Aad
from kmsbridge.datakeys import Pairs
from kmsbridge.errors import discreet

BATCH: Final = 500
"""Rows that are decrypted together."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row as it is stored: its key, the message of its value and the index beside it.

    `key` is returned as it was given. `message` is bytes, or an armored message, of text; `context` and `aad` are
    those it was encrypted with. `tenant` is what the index was, or is to be, computed with.
    """

    key: Any
    message: bytes | str | None
    index: bytes | None
    tenant: str
    context: Pairs = None
    aad: Aad = b""


@dataclass(frozen=True, slots=True)
class Change:
    """The key of a row, and the index to store in it."""

    key: Any
    index: bytes | None


def backfill(
    index: BlindIndex, decryptor: Decryptor | EnvelopeCipher, rows: Iterable[Row]
) -> Iterator[Change]:
    """Yield a change for each row whose index is not the one that `index.of` returns for its value.

    Rows are taken 500 at a time, and their data keys unwrapped together. Store a change only if the row's message is
    still the same. Repeat this until nothing is yielded. Raises what `decrypt_many` and `index.of` raise; an error
    of one row says its place among `rows`, from 0.
    """
    remaining, done = iter(rows), 0
    while batch := list(itertools.islice(remaining, BATCH)):
        yield from _changes(index, decryptor, batch, done)
        done += len(batch)


@discreet
def _changes(
    index: BlindIndex, decryptor: Decryptor | EnvelopeCipher, rows: Sequence[Row], first: int
) -> list[Change]:
    values = decryptor.decrypt_many(
        [row.message for row in rows],
        contexts=[row.context for row in rows],
        aads=[row.aad for row in rows],
    )
    changes = []
    for place, (row, value) in enumerate(zip(rows, values, strict=True)):
        try:
            text = value.decode() if isinstance(value, bytes) else value
            wanted = index.of(text, tenant=row.tenant)
        except UnicodeDecodeError:
            problem = "the value is not text"
        except ValueError as error:
            problem = str(error)
        else:
            if wanted != row.index:
                changes.append(Change(row.key, wanted))
            continue
        raise ValueError(f"row {first + place}: {problem}")
    return changes
