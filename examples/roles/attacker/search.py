"""Looks for whatever may be a key in any bytes: a file, a memory dump, a server's answer."""

from __future__ import annotations

import base64
import functools
import operator
import re
from collections.abc import Iterator
from typing import Final

KEY: Final = 32
WORD: Final = 8
PAGE: Final = 4096
MIN_DISTINCT: Final = 26
MIN_DISTINCT_HALVES: Final = 10
BITS: Final = range(96, 161)
"""The different bytes, different halves of bytes, and bits that are set, of what may be a key. Of random ones one in a
thousand has other numbers, of what else is in memory nearly everything. A data key in use is there in three forms."""
MAX_TEXT: Final = 100
"""A key stands in a text of this length at most; longer ones are messages or certificates."""

_UPPER_HALVES: Final = bytes(byte >> 4 for byte in range(256))
_TO_URL_SAFE: Final = bytes.maketrans(b"+/", b"-_")
_HEX: Final = re.compile(rb"[0-9a-fA-F]{64,}")
_BASE64: Final = re.compile(rb"[A-Za-z0-9+/_-]{43,}")
# Four words in a row that are no pointers or small numbers, whose upper two bytes are zero. One of a key's may be like that.
_FOUR: Final = re.compile(rb"(?=[^\0]{4}|\0[^\0]{3}|[^\0]\0[^\0]{2}|[^\0]{2}\0[^\0]|[^\0]{3}\0)")


def candidates(data: bytes) -> Iterator[bytes]:
    """Yield every 32 bytes in `data` that may be a key: raw, as hex, or as base64."""
    yield from windows(data)
    yield from _in_texts(data)


def candidates_in_memory(data: bytes) -> Iterator[bytes]:
    """Yield the same, raw only where a machine's word begins: objects in memory do."""
    for start in range(0, len(data), PAGE):
        yield from _candidates_of_page(data[start : start + PAGE + 2 * MAX_TEXT])


@functools.cache
def _candidates_of_page(page: bytes) -> tuple[bytes, ...]:
    """Return those of a page and the beginning of the next. Most pages are the same in each dump of a process."""
    words = len(page) // WORD
    upper = (int.from_bytes(page[at : words * WORD : WORD]) for at in (WORD - 2, WORD - 1))
    large = operator.or_(*upper).to_bytes(words)
    found = (page[WORD * each.start() : WORD * each.start() + KEY] for each in _FOUR.finditer(large))
    return (*filter(_may_be_key, found), *_in_texts(page))


def windows(data: bytes) -> Iterator[bytes]:
    """Yield every 32 bytes of `data` that may be a key as they stand there."""
    for start in range(len(data) - KEY + 1):
        window = data[start : start + KEY]
        if _may_be_key(window):
            yield window


def _in_texts(data: bytes) -> Iterator[bytes]:
    for text in _HEX.findall(data):
        if len(text) <= 2 * MAX_TEXT:
            for start in range(2):
                end = start + (len(text) - start) // 2 * 2
                yield from windows(bytes.fromhex(text[start:end].decode()))
    for text in _BASE64.findall(data):
        if len(text) <= MAX_TEXT:
            for start in range(4):
                yield from windows(_decoded(text[start:]))


def _decoded(text: bytes) -> bytes:
    """Decode base64 without padding, of either alphabet; one character too many is left out."""
    if len(text) % 4 == 1:
        text = text[:-1]
    return base64.urlsafe_b64decode(text.translate(_TO_URL_SAFE) + b"=" * (-len(text) % 4))


def _may_be_key(window: bytes) -> bool:
    return (
        len(set(window)) >= MIN_DISTINCT
        and len(set(window.translate(_UPPER_HALVES))) >= MIN_DISTINCT_HALVES
        and int.from_bytes(window).bit_count() in BITS
    )
