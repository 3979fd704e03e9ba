"""The lines of an audit file. Each holds the SHA-256 of the line before it, and of itself.

A line is `{"seq":N,...,"prev":"<64 hex>","sum":"<64 hex>"}` and a newline, in ASCII. `prev` is the SHA-256 of the
previous line's bytes without its newline, 64 zeros in the first line; `sum` is that of this line's bytes
before `,"sum"`. Both are computed from the bytes in the file, so verification needs no canonical JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Final, NamedTuple

from kmsbridge.errors import AuditError

START: Final = b'{"seq":'
NO_HASH: Final = "0" * 64
MAX_LINE: Final = 1024 * 1024
_SUM: Final = b',"sum":"'
_TAIL: Final = len(_SUM) + 64 + len(b'"}')


class Link(NamedTuple):
    """The end of a chain: the number of its last line, and that line's hash."""

    seq: int = 0
    hash: str = NO_HASH


def encode(fields: Mapping[str, Any], after: Link) -> tuple[bytes, Link]:
    """Return the line, with its newline, that adds `fields` to a chain ending in `after`, and the chain's new end."""
    link = {"seq": after.seq + 1, **fields, "prev": after.hash}
    bare = json.dumps(link, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode("ascii")[:-1]
    line = bare + _SUM + sha256(bare).hexdigest().encode("ascii") + b'"}'
    if len(line) >= MAX_LINE:
        raise AuditError(
            f"an audit line has {len(line)} bytes, more than {MAX_LINE}", remedy="use a smaller context"
        )
    return line + b"\n", Link(after.seq + 1, sha256(line).hexdigest())


def decode(line: bytes) -> dict[str, Any] | None:
    """Return the fields of a line, given without its newline; None where the line was changed."""
    bare, rest = line[:-_TAIL], line[-_TAIL:]
    if rest != _SUM + sha256(bare).hexdigest().encode("ascii") + b'"}' or not bare.startswith(START):
        return None
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        return None
    seq, prev, time = (fields.get(name) for name in ("seq", "prev", "time"))
    whole = isinstance(seq, int) and isinstance(prev, str) and isinstance(time, str)
    return fields if whole else None


def link_of(line: bytes, fields: Mapping[str, Any]) -> Link:
    """Return the end of a chain of which this is the last line."""
    return Link(fields["seq"], sha256(line).hexdigest())
