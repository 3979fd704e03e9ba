"""The lines of an audit file: each holds the SHA-256 of the line before it, and of itself.

`{"seq":N,...,"prev":"<64 hex>","sum":"<64 hex>"}` and a newline, in ASCII. `prev` is the SHA-256 of the
previous line's bytes without its newline, 64 zeros in the first line; `sum` that of this line's bytes
before `,"sum"`. Both are over bytes as they stand in the file, so checking needs no canonical JSON.
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
    """The line (newline included) that holds `fields` and follows `after`, and the chain's new end."""
    link = {"seq": after.seq + 1, **fields, "prev": after.hash}
    bare = json.dumps(link, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode("ascii")[:-1]
    line = bare + _SUM + sha256(bare).hexdigest().encode("ascii") + b'"}'
    if len(line) >= MAX_LINE:
        raise AuditError(f"an audit line of {len(line)} bytes", remedy=f"the limit is {MAX_LINE}")
    return line + b"\n", Link(after.seq + 1, sha256(line).hexdigest())


def decode(line: bytes) -> dict[str, Any] | None:
    """What a line (without its newline) holds; None where it is not as it was written."""
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
    """The end of a chain whose last line is this one."""
    return Link(fields["seq"], sha256(line).hexdigest())
