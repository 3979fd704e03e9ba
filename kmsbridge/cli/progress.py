"""The progress bar."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, Final

from kmsbridge.cli.options import settings
from kmsbridge.streams import write_all

SHOWN_FROM: Final = 8 << 20
"""Bytes; what is smaller is done before a bar could be read."""
_STEP: Final = 1 << 20

Tick = Callable[[int], None]


@contextlib.contextmanager
def progress(size: int, what: str) -> Iterator[Tick | None]:
    """A bar on stderr for `size` bytes of work; None where nobody would look at it."""
    if size < SHOWN_FROM or settings().quiet or sys.stderr is None or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    columns = (what, BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=size)
        yield lambda done: bar.update(task, completed=done)


def copy(reader: Any, writer: BinaryIO, tick: Tick | None = None) -> None:
    """Copy to the end, in constant memory."""
    done = 0
    while data := reader.read(_STEP):
        write_all(writer, data)
        done += len(data)
        if tick is not None:
            tick(done)
