"""Runs one command for many files, and goes on after a failure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kmsbridge.cli import exits
from kmsbridge.cli.exits import CommandError
from kmsbridge.cli.options import settings
from kmsbridge.cli.runner import report
from kmsbridge.errors import KmsBridgeError


def for_each(names: Sequence[str], action: Callable[[str], None]) -> int:
    """Call `action` with every name and report failures; return the exit code of the first failure, or 0."""
    code = 0
    for name in names:
        try:
            action(name)
        except BrokenPipeError:
            raise
        except (KmsBridgeError, OSError) as error:
            report(error, debug=settings().debug, prefix="" if isinstance(error, CommandError) else name)
            code = code or exits.code_of(error)
    return code
