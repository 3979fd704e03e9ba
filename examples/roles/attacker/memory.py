"""Reads the memory of another process. `python memory.py PID FILE [USER GROUP]`"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Final

PAGE: Final = 4096
REFUSED: Final = 3
"""The exit code when the kernel does not allow it."""


def dump(process: int) -> bytes:
    """Return the pages of a process that it may write and that are not empty. Raises `PermissionError`."""
    parts = []
    with Path(f"/proc/{process}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{process}/maps").read_text().splitlines():
            place, rights, *_ = line.split()
            if rights.startswith("rw"):
                start, end = (int(each, 16) for each in place.split("-"))
                with contextlib.suppress(OSError):  # a part that ended since, or is the kernel's own
                    memory.seek(start)
                    parts.append(memory.read(end - start))
    pages = (part[start : start + PAGE] for part in parts for start in range(0, len(part), PAGE))
    return b"".join(page for page in pages if page.strip(b"\0"))


def main() -> None:
    """Read the memory as the user that is named, or as this one, and write it to the file."""
    process, path, *user = sys.argv[1:]
    with Path(path).open("wb") as file:
        if user:
            os.setgroups([])
            os.setresgid(int(user[1]), int(user[1]), int(user[1]))
            os.setresuid(int(user[0]), int(user[0]), int(user[0]))
        try:
            file.write(dump(int(process)))
        except PermissionError:
            sys.exit(REFUSED)


if __name__ == "__main__":
    main()
