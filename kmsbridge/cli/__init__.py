"""The command line, a thin layer over the API. `docs/reference/cli.md` describes it."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command in `sys.argv` as the only work of this process, and return its exit code."""
    from kmsbridge.cli.process import run_process

    return run_process(sys.argv[1:])
