"""Prints results on stdout, and everything else on stderr in single lines."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from kmsbridge.cli import streams
from kmsbridge.streams import write_all


def plain(text: str) -> str:
    """Return `text` with line breaks and control characters escaped, so that it cannot control a terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def result(text: str) -> None:
    """Print one or more lines of the result. The caller must pass text from outside through `plain` first."""
    with streams.errors_about("standard output"):
        write_all(streams.stdout(), f"{text}\n".encode("utf-8", "backslashreplace"))


def document(value: Any) -> None:
    """Print the result as one JSON document, in ASCII."""
    result(json.dumps(value, indent=2))


def table(rows: Iterable[Sequence[str]], header: Sequence[str] = ()) -> None:
    """Print rows with their columns aligned."""
    cells = [[plain(cell) for cell in row] for row in rows]
    lines = [list(header), *cells] if header else cells
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        result("  ".join(padded).rstrip())


def say(text: str) -> None:
    """Print one line on stderr. An error while printing is ignored."""
    with contextlib.suppress(OSError, ValueError):
        if sys.stderr is None:
            return  # print would use stdout instead
        print(f"kmsbridge: {plain(text)}", file=sys.stderr, flush=True)
