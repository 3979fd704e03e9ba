"""Reads values from files and environment variables, and resolves the references `env:NAME` and `file:PATH`."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from kmsbridge.config.model import Setting
from kmsbridge.config.suggestions import dotted_name
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
    """A configuration that is being read, with what is needed to resolve its references.

    `label` is the name of the configuration in errors: the file's path, `KMSBRIDGE_KEY` or `from_uri`. `given_by`
    is the origin of all values where it is not a file. Relative paths start from `folder`. Every value in effect is
    noted in `settings`.
    """

    label: str
    folder: str
    env: Mapping[str, str]
    settings: list[Setting]
    given_by: str = ""

    def __repr__(self) -> str:
        return f"Source({self.label!r})"

    def resolve(self, value: Any, name: str) -> tuple[Any, str]:
        """Return the value, or the text that it refers to, and where it came from.

        References are resolved once: text that a reference leads to is not treated as another reference. Raises
        `ConfigError` where a reference leads nowhere.
        """
        if not is_reference(value):
            return value, self.place(name)
        kind, _, target = value.partition(":")
        if kind == "env":
            return self._variable(target, name), f"environment variable {target} ({self.place(name)})"
        path = os.path.join(self.folder, target)
        return self._file(path, target, name), f"file {path} ({self.place(name)})"

    def resolve_option(self, value: Any, name: str, *, hidden: bool = False, depth: int = 0) -> Any:
        """Return a driver's option with every reference resolved, also those in tables and lists.

        The value of a `hidden` option is masked in `settings`.
        """
        if depth > MAX_DEPTH:
            raise ConfigError(f"{name} is nested too deeply", remedy=f"use at most {MAX_DEPTH} levels")
        depth += 1
        if isinstance(value, Mapping):
            return {
                key: self.resolve_option(
                    member,
                    dotted_name(name, str(key)),
                    hidden=hidden or sounds_secret(str(key), member),
                    depth=depth,
                )
                for key, member in value.items()
            }
        if isinstance(value, (list, tuple)):
            return [
                self.resolve_option(item, f"{name}[{n}]", hidden=hidden, depth=depth)
                for n, item in enumerate(value)
            ]
        resolved, origin = self.resolve(value, name)
        self.note(name, MASK if hidden or is_reference(value) else _shown(value), origin)
        return resolved

    def note(self, name: str, value: str, origin: str) -> None:
        """Keep a value in effect for `explain`."""
        self.settings.append(Setting(name, value, origin))

    def place(self, name: str) -> str:
        """Return where a literal value was given, for people to read."""
        table, _, key = name.rpartition(".")
        return self.given_by or f"{self.label}: {f'[{table}] ' if table else ''}{key}"

    @property
    def from_arguments(self) -> bool:
        """True if the values are arguments of a call, so that names of tables would mean nothing to the caller."""
        return self.given_by == ARGUMENT

    def _variable(self, variable: str, name: str) -> str:
        if not (variable.isascii() and variable.isidentifier()):
            raise ConfigError(
                f"{name} does not refer to a valid environment variable", remedy="write env:NAME"
            )
        value = read_variable(self.env, variable)
        if value is None:
            raise ConfigError(
                f"{name} refers to the environment variable {variable}, which is not set", remedy="set it"
            )
        return value

    def _file(self, path: str, target: str, name: str) -> str:
        if not target:
            raise ConfigError(f"{name} does not refer to a file", remedy="write file:PATH")
        data = read_file(path, f"{name} refers to {quoted(path)}, which", MAX_REFERENCED)
        try:
            content = data.decode()
        except UnicodeDecodeError:
            content = None  # raised below: the exception holds the file's bytes
        if content is None:
            raise ConfigError(
                f"{name} refers to {quoted(path)}, which is not UTF-8", remedy="store it as text"
            )
        return content.removesuffix("\n").removesuffix("\r") if content.endswith("\n") else content


def is_reference(value: object) -> bool:
    """Return whether the value is `env:NAME` or `file:PATH`."""
    return isinstance(value, str) and value.startswith(("env:", "file:"))


def read_variable(env: Mapping[str, str], variable: str) -> str | None:
    """Return the variable's value, None where it is missing or empty."""
    value = env.get(variable)
    if value is not None and not isinstance(value, str):
        raise TypeError(f"env[{variable!r}] must be str, not {type(value).__name__}")
    return value or None


def read_file(path: str, what: str, limit: int) -> bytes:
    """Return the content of a regular file of at most `limit` bytes, and raise `ConfigError` for any other.

    `what` is the beginning of the error's text. A pipe is refused without waiting for it.
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
        return ConfigError(
            f"{what} may not be read by this user", remedy="give this user the right to read it"
        )
    reason = error.strerror if isinstance(error, OSError) else "invalid file name"
    return ConfigError(f"{what} cannot be read ({reason})", remedy="check the path")


def sounds_secret(option: str, value: object) -> bool:
    """Return whether an option of this name may hold a secret, so that its value must not be shown.

    The options within a table such as `auth`, which says how to log in, are decided one by one.
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
        host = MASK  # it could be the first half of a password that has a ? or #
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
