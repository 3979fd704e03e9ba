"""Blind indexes: keyed hashes of values, stored beside them, by which encrypted values are looked up.

    phone_index = BlindIndex("users.phone", keys="phone", normalize=e164("GB"))

The format is described in docs/reference/blind-index.md.
"""

from __future__ import annotations

from kmsbridge.blindindex.backfill import Change, Row, backfill
from kmsbridge.blindindex.index import BlindIndex
from kmsbridge.blindindex.keys import index_keys, new_index_key
from kmsbridge.blindindex.normalizers import Normalizer, e164

__all__ = [
    "BlindIndex",
    "Change",
    "Normalizer",
    "Row",
    "backfill",
    "e164",
    "index_keys",
    "new_index_key",
]
