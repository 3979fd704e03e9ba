"""Reads a dotenv file: one NAME=VALUE a line, as python-dotenv reads it, without its expansion of variables."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, NoReturn

from kmsbridge.cli.exits import CommandError
from kmsbridge.cli.streams import errors_about

_LARGEST: Final = 1024 * 1024
_LINE: Final = re.compile(
    r"""\s*(?:export\s+)?(?P<name>[A-Za-z_][A-Za-z0-9_.-]*)\s*=
        (?: \s*'(?P<single>(?:[^'\\]++|\\.)*+)'\s*(?:\#.*)?
          | \s*"(?P<double>(?:[^"\\]++|\\.)*+)"\s*(?:\#.*)?
          | (?P<bare>(?!\s*['"]).*) )""",
    re.VERBOSE | re.DOTALL,
)
_COMMENT: Final = re.compile(r"(?<!\s)\s+#.*|^\s+#.*", re.DOTALL)
_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)
_ESCAPED: Final = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


@dataclass(frozen=True, slots=True)
class Entry:
    """A variable's value, and the line that sets it, counted from 1."""

    value: str
    line: int

    def __repr__(self) -> str:
        return f"Entry(line={self.line})"


def read(path: str) -> dict[str, Entry]:
    """Return the variables in the file at `path`. A name that is set twice has its last value.

    Raises `CommandError` with the file and the line, and never with what stands there: the file cannot be read, is
    larger than 1 MiB, or has a line that is none of NAME=VALUE, a comment, and empty.
    """
    with errors_about(path), open(path, "rb") as file:
        data = file.read(_LARGEST + 1)
    if len(data) > _LARGEST:
        raise CommandError(f"{path} is larger than 1 MiB", remedy="check that it is the right file")
    text = data.decode("utf-8", "surrogateescape").removeprefix("\N{BOM}")
    entries = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            _refuse(path, number, "is not NAME=VALUE with closed quotes", "write each variable on one line")
        if "\0" in line:
            _refuse(path, number, "has a NUL character", "keep the value in a file instead")
        entries[match["name"]] = Entry(_value(match), number)
    return entries


def _value(match: re.Match[str]) -> str:
    if match["double"] is not None:
        return _ESCAPE.sub(lambda escape: _ESCAPED.get(escape[1], _kept(escape, "\"'\\")), match["double"])
    if match["single"] is not None:
        return _ESCAPE.sub(lambda escape: _kept(escape, "'\\"), match["single"])
    return _COMMENT.sub("", match["bare"]).strip()


def _kept(escape: re.Match[str], known: str) -> str:
    """Return the character behind the backslash where it is one of `known`, else both."""
    return escape[1] if escape[1] in known else escape[0]


def _refuse(path: str, number: int, problem: str, remedy: str) -> NoReturn:
    raise CommandError(f"{path}: line {number} {problem}", remedy=remedy)
