"""What is printed: the result on stdout, everything else on stderr, in one line each."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from kmsbridge.cli import streams
from kmsbridge.streams import write_all


def plain(text: str) -> str:
    """`text` with everything escaped that could drive a terminal or begin a line."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def result(text: str) -> None:
    """Print a line, or several, of the result. The caller has passed what is not its own to `plain`."""
    with streams.named("standard output"):
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
    """Print one line on stderr. Where nobody can read it, that is no reason to fail."""
    with contextlib.suppress(OSError, ValueError):
        if sys.stderr is None:
            return  # print would take stdout instead
        print(f"kmsbridge: {plain(text)}", file=sys.stderr, flush=True)
