"""Where values come from: files, variables, and the references `env:NAME` and `file:PATH`."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from kmsbridge.config.model import Setting
from kmsbridge.config.suggestions import dotted
from kmsbridge.errors import ConfigError, quoted

ARGUMENT: Final = "argument"
MASK: Final = "***"
MAX_REFERENCED: Final = 64 * 1024
MAX_DEPTH: Final = 16
_SECRET = re.compile(
    r"token|secret|passw|passphrase|pwd|credential|key|pin\b|private|auth|bearer|cookie|header|dsn",
    re.IGNORECASE,
)
_NO_SECRET: Final = ("_file", "_path", "_folder", "_dir", "_name", "_arn", "_method")
_PARAMETER: Final = r"(?<=[?&#])([^=?&#]*=)?[^&#]*"


class Source(NamedTuple):
    """One configuration being read: what errors call it, and where its references point to.

    `label` is the file's path, `KMSBRIDGE_KEY` or `from_uri`; `given_by` says who gave all values
    where no file did. Relative paths start at `folder`. Every effective value is noted in `settings`.
    """

    label: str
    folder: str
    env: Mapping[str, str]
    settings: list[Setting]
    given_by: str = ""

    def __repr__(self) -> str:
        return f"Source({self.label!r})"

    def resolve(self, value: Any, name: str) -> tuple[Any, str]:
        """The value, and where it came from; a reference gives the text that it refers to.

        One level only: text that comes out of a reference is never taken for another one.
        """
        if not is_reference(value):
            return value, self.place(name)
        kind, _, target = value.partition(":")
        if kind == "env":
            return self._variable(target, name), f"environment variable {target} ({self.place(name)})"
        path = os.path.join(self.folder, target)
        return self._file(path, target, name), f"file {path} ({self.place(name)})"

    def resolve_option(self, value: Any, name: str, *, hidden: bool = False, depth: int = 0) -> Any:
        """A driver's option with every reference in it resolved, tables and lists included.

        `hidden` ones are noted without their value.
        """
        if depth > MAX_DEPTH:
            raise ConfigError(f"{name} is nested too deeply", remedy=f"use at most {MAX_DEPTH} levels")
        depth += 1
        if isinstance(value, Mapping):
            return {
                key: self.resolve_option(
                    each, dotted(name, str(key)), hidden=hidden or sounds_secret(str(key), each), depth=depth
                )
                for key, each in value.items()
            }
        if isinstance(value, (list, tuple)):
            return [
                self.resolve_option(each, f"{name}[{n}]", hidden=hidden, depth=depth)
                for n, each in enumerate(value)
            ]
        resolved, origin = self.resolve(value, name)
        self.note(name, MASK if hidden or is_reference(value) else _shown(value), origin)
        return resolved

    def note(self, name: str, value: str, origin: str) -> None:
        """Remember an effective value for `explain`."""
        self.settings.append(Setting(name, value, origin))

    def place(self, name: str) -> str:
        """Where a literal value stands."""
        table, _, key = name.rpartition(".")
        return self.given_by or f"{self.label}: {f'[{table}] ' if table else ''}{key}"

    @property
    def from_arguments(self) -> bool:
        """Whether names of tables would mean nothing to the caller."""
        return self.given_by == ARGUMENT

    def _variable(self, variable: str, name: str) -> str:
        if not (variable.isascii() and variable.isidentifier()):
            raise ConfigError(f"{name} refers to no variable", remedy="write env:NAME")
        value = read_variable(self.env, variable)
        if value is None:
            raise ConfigError(
                f"{name} needs the environment variable {variable}, which is not set", remedy="set it"
            )
        return value

    def _file(self, path: str, target: str, name: str) -> str:
        if not target:
            raise ConfigError(f"{name} refers to no file", remedy="write file:PATH")
        data = read_file(path, f"{name} refers to {quoted(path)}, which", MAX_REFERENCED)
        try:
            content = data.decode()
        except UnicodeDecodeError:
            content = None  # raised below: the exception would carry the file's bytes along
        if content is None:
            raise ConfigError(
                f"{name} refers to {quoted(path)}, which is not UTF-8", remedy="store it as text"
            )
        return content.removesuffix("\n").removesuffix("\r") if content.endswith("\n") else content


def is_reference(value: object) -> bool:
    """Whether the value is `env:NAME` or `file:PATH`."""
    return isinstance(value, str) and value.startswith(("env:", "file:"))


def read_variable(env: Mapping[str, str], variable: str) -> str | None:
    """The variable's value; None where it is not set or empty."""
    value = env.get(variable)
    if value is not None and not isinstance(value, str):
        raise TypeError(f"env[{variable!r}] must be str, not {type(value).__name__}")
    return value or None


def read_file(path: str, what: str, limit: int) -> bytes:
    """The content of a regular file of at most `limit` bytes; anything else is a `ConfigError`.

    `what` begins the sentence that says what is wrong. Never waits, as a pipe would make it do.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            mode = os.fstat(descriptor).st_mode
            data = _read_at_most(descriptor, limit + 1) if stat.S_ISREG(mode) else b""
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as error:
        raise _unreadable(error, what) from None
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "not a regular file"
        raise ConfigError(f"{what} is {kind}", remedy="name a regular file")
    if len(data) > limit:
        raise ConfigError(
            f"{what} is larger than {limit // 1024} KiB", remedy="check that it is the right file"
        )
    return data


def _read_at_most(descriptor: int, limit: int) -> bytes:
    data = bytearray()
    while len(data) < limit and (block := os.read(descriptor, limit - len(data))):
        data += block
    return bytes(data)


def _unreadable(error: OSError | ValueError, what: str) -> ConfigError:
    if isinstance(error, FileNotFoundError):
        return ConfigError(f"{what} does not exist", remedy="check the path")
    if isinstance(error, PermissionError):
        return ConfigError(f"{what} may not be read", remedy="give this user the right to read it")
    reason = error.strerror if isinstance(error, OSError) else "no such name is possible"
    return ConfigError(f"{what} cannot be read ({reason})", remedy="check the path")


def sounds_secret(option: str, value: object) -> bool:
    """Whether an option of this name may hold a secret, so that its value is better not shown.

    Of a table such as `auth`, which tells how to log in, each option is judged by its own name.
    """
    if isinstance(value, Mapping) and f"_{option.lower()}".endswith("_auth"):
        return False
    return bool(_SECRET.search(option)) and not option.lower().endswith(_NO_SECRET)


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str) or "://" not in value:
        return str(value)
    scheme, mark, rest = value.partition("://")
    found = re.search(r"[?#]", rest)
    place, tail = (rest[: found.start()], rest[found.start() :]) if found else (rest, "")
    user, at, host = place.rpartition("@")
    if "@" in tail:
        host = MASK  # of a password with ? or # the place would be the first half
    return (
        scheme
        + mark
        + (MASK if user else "")
        + at
        + host
        + (re.sub(_PARAMETER, _masked, tail) if tail else "")
    )


def _masked(parameter: re.Match[str]) -> str:
    return (parameter[1] or "") + MASK
