"""Makes git ignore key files."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
from collections.abc import Sequence

from kmsbridge import atomic
from kmsbridge.cli.exits import CommandError

_SPECIAL = re.compile(r"[*?\[\]\\]|(?<=.) +$")


def checkout_of(folder: str) -> str | None:
    """Return the root of the git checkout that contains `folder`, None outside of one. Does not need git."""
    folder = os.path.realpath(folder)
    while not os.path.lexists(os.path.join(folder, ".git")):
        parent = os.path.dirname(folder)
        if parent == folder:
            return None
        folder = parent
    return folder


def ensure_ignored(folder: str, names: Sequence[str]) -> str | None:
    """Make git ignore these files of `folder`; return the path of the `.gitignore` if it was changed.

    Raises `CommandError` where git does not ignore them afterwards, and `OSError`.
    """
    path = os.path.join(folder, ".gitignore")
    text = _read(path)  # before git runs, which would wait for a FIFO
    present = text.split(b"\n")
    # Where git does not ignore a file although its line is present, a later line undoes it: the line is added again.
    missing = [
        pattern
        for name, pattern in ((name, _pattern(name)) for name in names)
        if (ignored := _is_ignored(folder, name)) is False or (ignored is None and pattern not in present)
    ]
    if not missing:
        return None
    start = text if not text or text.endswith(b"\n") else text + b"\n"
    mode = os.stat(path).st_mode & 0o777 if text else 0o666
    added = b"\n".join([b"# kmsbridge: keys must not be committed", *missing, b""])
    atomic.write(path, start + added, mode=mode)
    if any(_is_ignored(folder, name) is False for name in names):
        raise CommandError(
            f"git does not ignore {names[0]} although {path} says so, so no key was made",
            remedy="run 'git check-ignore --verbose --no-index' to see why, or choose another --key-file",
        )
    return path


def is_tracked(folder: str, name: str) -> bool:
    """Return whether git tracks the file."""
    return _git(folder, "--literal-pathspecs", "ls-files", "--error-unmatch", "--", name) == 0


def _is_ignored(folder: str, name: str) -> bool | None:
    """Return whether git ignores the file, None where git cannot be run."""
    # For the pattern of temporary files, git is asked about one example.
    example = f"./{name.replace('*', '0' * 12)}"
    code = _git(folder, "check-ignore", "--quiet", "--no-index", "--", example)
    return {0: True, 1: False}.get(code)


def _git(folder: str, *arguments: str) -> int:
    git = shutil.which("git")
    if git is None:
        return -1
    command = [git, "-C", folder, "-c", "core.fsmonitor=false", *arguments]
    done = subprocess.run(  # noqa: S603 - a fixed command, and names after "--"
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
    )
    return done.returncode


def _pattern(name: str) -> bytes:
    """Return the line of a `.gitignore` that matches exactly `name` in its folder, where `*` matches anything."""
    escaped = _SPECIAL.sub(lambda m: m[0] if m[0] == "*" else "".join(f"\\{c}" for c in m[0]), name)
    return os.fsencode(f"/{escaped}")


def _read(path: str) -> bytes:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return b""
    if not stat.S_ISREG(status.st_mode):
        # Git does not follow a link there (since 2.32), and the link may lead to another project's file.
        kind = "a symbolic link" if stat.S_ISLNK(status.st_mode) else "not a regular file"
        raise CommandError(
            f"{path} is {kind}, so git would not ignore the key; no key was made",
            remedy="replace it with a regular file, or choose another --key-file",
        )
    with open(path, "rb") as file:
        return file.read()
