"""`python -m kmsbridge`: the command, where its script is not on the path."""

from __future__ import annotations

import sys

from kmsbridge.cli import main

if __name__ == "__main__":
    sys.exit(main())
