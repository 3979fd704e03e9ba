"""The progress bar."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, Final

from kmsbridge.cli.options import settings
from kmsbridge.streams import write_all

SHOWN_FROM: Final = 8 << 20
"""The least number of bytes for which a bar is shown: less is done before anybody could read it."""
_STEP: Final = 1 << 20

Tick = Callable[[int], None]


@contextlib.contextmanager
def progress(size: int, what: str) -> Iterator[Tick | None]:
    """Show a progress bar on stderr for `size` bytes; yield a function that sets the bytes done.

    Yields None where no bar is shown: for few bytes, with `--quiet`, or without a terminal.
    """
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
    """Copy `reader` to `writer` to its end in constant memory, and call `tick` with the bytes done."""
    done = 0
    while data := reader.read(_STEP):
        write_all(writer, data)
        done += len(data)
        if tick is not None:
            tick(done)
