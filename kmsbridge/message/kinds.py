"""The table of kinds: the content of each kind of message. All code that distinguishes kinds uses it."""

from __future__ import annotations

import enum
from typing import Final, NamedTuple

MAX_RECIPIENTS: Final = 16


class Kind(enum.IntEnum):
    """The kinds of messages. `LAYOUTS` has the layout of each."""

    INLINE = 0
    STORED = 1
    DIRECT = 2
    INLINE_COMPACT = 3
    STORED_COMPACT = 4


class DataKeyIn(enum.Enum):
    """The place of a message's data key. The values are what `inspect` shows."""

    RECIPIENTS = "inline"
    """The header holds it, wrapped once for each recipient."""
    STORE = "stored"
    """A key store holds it, under the id that is in the header."""
    NOWHERE = "direct"
    """There is no data key: the recipient's key wraps the payload itself."""


class BodyFormat(enum.Enum):
    """The format of the bytes after the header. The values are what `inspect` shows."""

    CHUNKED = "chunked"
    """Any number of encrypted chunks of 16 KiB."""
    COMPACT = "compact"
    """One piece, of a payload of at most 64 KiB."""
    NONE = "none"
    """There is no body."""


class Layout(NamedTuple):
    """The content of a kind of message. `padded` says whether zero bytes may follow the header's content."""

    data_key_in: DataKeyIn
    body: BodyFormat
    most_recipients: int
    padded: bool


LAYOUTS: Final = {
    Kind.INLINE: Layout(DataKeyIn.RECIPIENTS, BodyFormat.CHUNKED, MAX_RECIPIENTS, padded=True),
    Kind.STORED: Layout(DataKeyIn.STORE, BodyFormat.CHUNKED, 0, padded=True),
    Kind.DIRECT: Layout(DataKeyIn.NOWHERE, BodyFormat.NONE, 1, padded=False),
    Kind.INLINE_COMPACT: Layout(DataKeyIn.RECIPIENTS, BodyFormat.COMPACT, MAX_RECIPIENTS, padded=False),
    Kind.STORED_COMPACT: Layout(DataKeyIn.STORE, BodyFormat.COMPACT, 0, padded=False),
}

COMPACT_KINDS: Final = frozenset(
    int(kind) for kind, layout in LAYOUTS.items() if layout.body is BodyFormat.COMPACT
)
"""The kinds with a compact body, as the numbers that stand in messages: what is cheapest to ask."""
