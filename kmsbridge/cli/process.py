"""One command as a process: signals clean up, and missing descriptors and broken pipes do no harm."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import TYPE_CHECKING, Final

from kmsbridge.cli.running import run

if TYPE_CHECKING:
    import click

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(BaseException):
    """A signal asked the process to end; raised where it was, so that half-made files are removed."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.code = 128 + number


def run_process(args: Sequence[str]) -> int:
    """Run one command as all that this process does; gives its exit code."""
    try:
        _open_missing()
        _stop_on_signals()
        return run(_load(), args)
    except Stopped as stopped:
        return stopped.code
    finally:
        for each in _SIGNALS:
            if signal.getsignal(each) is not signal.SIG_IGN:
                signal.signal(each, signal.SIG_DFL)
        _forget_output()


def _load() -> click.Group:
    try:
        from kmsbridge.cli.app import app
    except ModuleNotFoundError as error:
        if error.name != "click":
            raise
        raise SystemExit("kmsbridge: click is not installed; pip install 'kmsbridge[cli]'") from None
    return app


def _open_missing() -> None:
    # A process may be started without these; the next file opened would take their place.
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _stop_on_signals() -> None:
    def stop(number: int, _frame: FrameType | None) -> None:
        # A second one must not break off the cleaning up.
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        raise Stopped(number)

    for each in _SIGNALS:
        # One that is ignored, as under nohup, stays so.
        if signal.getsignal(each) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(each, stop)


def _forget_output() -> None:
    """Keep the interpreter from failing when it flushes, at its end, to a pipe that is broken."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
