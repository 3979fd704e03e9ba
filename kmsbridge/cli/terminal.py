"""Keeps a terminal from showing plaintext that is not text."""

from __future__ import annotations

import codecs
import sys
from typing import BinaryIO

from kmsbridge.cli.exits import CommandError
from kmsbridge.streams import write_all

_FINE = frozenset("\t\n\r")


def is_terminal(target: str | None) -> bool:
    """Return whether the output goes to a terminal although the user did not ask for that with `-o -`."""
    return target is None and sys.stdout is not None and sys.stdout.isatty()


class TextOnly:
    """A writer that passes text on, and raises `CommandError` for bytes that could control the terminal."""

    def __init__(self, writer: BinaryIO) -> None:
        self._writer = writer
        self._decode = codecs.getincrementaldecoder("utf-8")().decode

    def write(self, data: bytes | memoryview) -> int:
        """Write all of `data`, or nothing; return its length."""
        if not self._is_text(bytes(data)):
            # Not inside `except`: the decoder's error holds the plaintext.
            raise CommandError(
                "the plaintext is not text and would be written to the terminal",
                remedy="name a file with -o, or write it to the terminal anyway with -o -",
            )
        write_all(self._writer, data)
        return len(data)

    def _is_text(self, data: bytes) -> bool:
        try:
            text = self._decode(data)
        except UnicodeDecodeError:
            return False
        return all((c >= " " and not "\x7f" <= c <= "\x9f") or c in _FINE for c in text)
