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


class DataKeyIn(enum.Enum):
    """The place of a message's data key."""

    RECIPIENTS = enum.auto()
    """The header holds it, wrapped once for each recipient."""
    STORE = enum.auto()
    """A key store holds it, under the id that is in the header."""
    NOWHERE = enum.auto()
    """There is no data key: the recipient's key wraps the payload itself."""


class BodyFormat(enum.Enum):
    """The format of the bytes after the header."""

    CHUNKED = enum.auto()
    """Any number of encrypted chunks of 16 KiB."""
    NONE = enum.auto()
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
}
