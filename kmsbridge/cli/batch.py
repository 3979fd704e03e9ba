"""One command for many files: a failure is told, and the others are done nevertheless."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kmsbridge.cli import exits
from kmsbridge.cli.exits import CommandError
from kmsbridge.cli.options import settings
from kmsbridge.cli.running import report
from kmsbridge.errors import KmsBridgeError


def for_each(names: Sequence[str], action: Callable[[str], None]) -> int:
    """Do `action` for every name; gives the exit code of the first that failed, or 0."""
    code = 0
    for name in names:
        try:
            action(name)
        except BrokenPipeError:
            raise
        except (KmsBridgeError, OSError) as error:
            report(error, debug=settings().debug, about="" if isinstance(error, CommandError) else name)
            code = code or exits.code_of(error)
    return code
