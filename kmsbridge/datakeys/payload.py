"""A payload that is in memory as a whole, in the chunks in which files are read."""

from __future__ import annotations

from kmsbridge.message.cobblestone import CHUNK
from kmsbridge.secret import Secret


class PayloadReader:
    """Stands in for `chunk_reader.ChunkReader` where there are no chunks: in direct and compact messages.

    `size` is the payload's length in bytes.
    """

    def __init__(self, payload: bytes) -> None:
        self._payload = Secret(payload)
        self.size = len(payload)

    def chunk(self, number: int) -> bytes:
        """Return part `number`, counted from 0, of 16,384 bytes or what is left."""
        return self._payload.reveal()[number * CHUNK : (number + 1) * CHUNK]
