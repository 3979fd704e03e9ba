"""The command line: a thin shell over the API. `docs/reference/cli.md` describes it."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command that `sys.argv` holds, as all that this process does; gives its exit code."""
    from kmsbridge.cli.process import run_process

    return run_process(sys.argv[1:])
