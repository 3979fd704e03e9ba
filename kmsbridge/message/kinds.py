"""The table of kinds: what each kind of message holds. Whoever tells kinds apart asks it."""

from __future__ import annotations

import enum
from typing import Final, NamedTuple

MAX_RECIPIENTS: Final = 16


class Kind(enum.IntEnum):
    """The kinds of messages. `LAYOUTS` says what each holds; nobody else tells one from another."""

    INLINE = 0
    STORED = 1
    DIRECT = 2


class DataKeyIn(enum.Enum):
    """Where a message's data key is."""

    RECIPIENTS = enum.auto()
    """Wrapped, in the header, once for each recipient."""
    STORE = enum.auto()
    """In a key store, under the id that the header holds."""
    NOWHERE = enum.auto()
    """There is none: the recipients' keys wrap the payload itself."""


class BodyFormat(enum.Enum):
    """What stands behind the header."""

    CHUNKED = enum.auto()
    """Chunks of 16 KiB, of any number."""
    NONE = enum.auto()
    """Nothing."""


class Layout(NamedTuple):
    """What a kind of message holds. `padded`: whether zero bytes may follow the header's content."""

    data_key_in: DataKeyIn
    body: BodyFormat
    most_recipients: int
    padded: bool


LAYOUTS: Final = {
    Kind.INLINE: Layout(DataKeyIn.RECIPIENTS, BodyFormat.CHUNKED, MAX_RECIPIENTS, padded=True),
    Kind.STORED: Layout(DataKeyIn.STORE, BodyFormat.CHUNKED, 0, padded=True),
    Kind.DIRECT: Layout(DataKeyIn.NOWHERE, BodyFormat.NONE, 1, padded=False),
}
