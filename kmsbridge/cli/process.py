"""Runs one command as a process: handles signals, missing file descriptors and broken pipes."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import TYPE_CHECKING, Final

from kmsbridge.cli.runner import run

if TYPE_CHECKING:
    import click

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(BaseException):
    """Raised by the handler of a signal that ends the process, so that incomplete files are removed."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.code = 128 + number


def run_process(args: Sequence[str]) -> int:
    """Run one command as the only work of this process, and return its exit code."""
    try:
        _open_missing()
        _stop_on_signals()
        return run(_load(), args)
    except Stopped as stopped:
        return stopped.code
    finally:
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, signal.SIG_DFL)
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
    # A process may be started without these descriptors, and the next file to be opened would get their numbers.
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _stop_on_signals() -> None:
    def stop(number: int, _frame: FrameType | None) -> None:
        # A second signal must not interrupt the cleanup.
        for other in _SIGNALS:
            signal.signal(other, signal.SIG_IGN)
        raise Stopped(number)

    for number in _SIGNALS:
        # A signal that is ignored, as under nohup, stays ignored.
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, stop)


def _forget_output() -> None:
    """Keep the interpreter from failing when it flushes standard output to a broken pipe at exit."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
