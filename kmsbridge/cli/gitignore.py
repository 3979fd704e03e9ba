"""Keeps key files out of git."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence

from kmsbridge import atomic

_SPECIAL = re.compile(r"[*?\[\]\\]|(?<=.) +$")


def checkout_of(folder: str) -> str | None:
    """The root of the git checkout that `folder` is in; git itself is not needed to tell."""
    folder = os.path.realpath(folder)
    while not os.path.lexists(os.path.join(folder, ".git")):
        parent = os.path.dirname(folder)
        if parent == folder:
            return None
        folder = parent
    return folder


def ensure_ignored(folder: str, names: Sequence[str]) -> str | None:
    """See that git ignores these files of `folder`; gives the path of the `.gitignore` that had to change."""
    patterns = [_pattern(name) for name in names if not _is_ignored(folder, name)]
    path = os.path.join(folder, ".gitignore")
    text = _read(path)
    missing = [each for each in patterns if each not in text.split(b"\n")]
    if not missing:
        return None
    start = text if not text or text.endswith(b"\n") else text + b"\n"
    mode = os.stat(path).st_mode & 0o777 if text else 0o666
    added = b"\n".join([b"# kmsbridge: keys must not be committed", *missing, b""])
    atomic.write(path, start + added, mode=mode)
    return path


def is_tracked(folder: str, name: str) -> bool:
    """Whether git has the file in its index."""
    return _git(folder, "--literal-pathspecs", "ls-files", "--error-unmatch", "--", name) == 0


def _is_ignored(folder: str, name: str) -> bool:
    # Of the pattern for temporary files one example is asked for.
    return (
        _git(folder, "check-ignore", "--quiet", "--no-index", "--", f"./{name.replace('*', '0' * 12)}") == 0
    )


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
    """The line that ignores exactly `name` beside it, where `*` stands for anything."""
    escaped = _SPECIAL.sub(lambda m: m[0] if m[0] == "*" else "".join(f"\\{c}" for c in m[0]), name)
    return os.fsencode(f"/{escaped}")


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return b""
