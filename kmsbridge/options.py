"""The options of a key, which its driver reads by name and type."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Literal, NoReturn, overload

from kmsbridge.errors import ConfigError
from kmsbridge.secret import Secret


class Options:
    """A key's options from the configuration, with `env:` and `file:` values resolved.

    A driver reads each option that it knows with `text`, `secret`, `path`, `flag`, `number` or `table`. After
    `open`, the library raises an error for an option that the driver did not read, so that a misspelt option
    is never ignored. `name` is the name of the table in errors. `folder` is the folder that relative paths
    start from: that of the configuration file, or empty for the current folder.

    Every method raises `ConfigError`, which does not quote the value, for a value of another type. With
    `required=True` it also does for an option that is missing or empty.
    """

    def __init__(self, values: Mapping[str, Any], *, name: str = "options", folder: str = "") -> None:
        self._values = dict(values)
        self._asked: set[str] = set()
        self._tables: list[Options] = []
        self.name = name
        self.folder = folder

    @overload
    def text(self, option: str, default: None = None, *, required: Literal[True]) -> str: ...
    @overload
    def text(self, option: str, default: str, *, required: bool = False) -> str: ...
    @overload
    def text(self, option: str, default: None = None, *, required: bool = False) -> str | None: ...
    def text(self, option: str, default: str | None = None, *, required: bool = False) -> str | None:
        """Return the option as text that is not secret and may be shown."""
        value: str | None = self._take(option, str, "text")
        if required and not (value or default):
            raise self._missing(option)
        return default if value is None else value

    @overload
    def path(self, option: str, default: None = None, *, required: Literal[True]) -> str: ...
    @overload
    def path(self, option: str, default: str, *, required: bool = False) -> str: ...
    @overload
    def path(self, option: str, default: None = None, *, required: bool = False) -> str | None: ...
    def path(self, option: str, default: str | None = None, *, required: bool = False) -> str | None:
        """Return the option, or the default, as the absolute path of a file or folder, which need not exist.

        A relative path starts from `folder`; `~` is not expanded. Where the option and the default are both
        missing or empty, the default is returned as it is.
        """
        value = self.text(option) or default
        if required and not value:
            raise self._missing(option)
        return os.path.join(os.path.abspath(self.folder), value) if value else default

    @overload
    def secret(self, option: str, *, required: Literal[True]) -> Secret: ...
    @overload
    def secret(self, option: str, *, required: bool = False) -> Secret | None: ...
    def secret(self, option: str, *, required: bool = False) -> Secret | None:
        """Return the option as a `Secret`, which does not show in a repr or an error."""
        value = self._take(option, str, "text")
        if required and not value:
            raise self._missing(option)
        return None if value is None else Secret.of_text(value)

    def flag(self, option: str, default: bool = False) -> bool:
        """Return the option, which must be true or false."""
        value = self._take(option, bool, "true or false")
        return default if value is None else bool(value)

    def number(self, option: str, default: float | None = None) -> float | None:
        """Return the option, which must be a number."""
        value = self._take(option, (int, float), "a number")
        return default if value is None else value

    def table(self, option: str) -> Options:
        """Return the option as a table of options, which is empty where the option is missing."""
        value = self._take(option, Mapping, "a table")
        table = Options(value or {}, name=f"{self.name}.{option}", folder=self.folder)
        self._tables.append(table)
        return table

    def known(self) -> list[str]:
        """Return the names of the options that the driver has read so far, sorted."""
        return sorted(self._asked)

    def unknown(self) -> list[tuple[Options, str]]:
        """Return the names of the options that were given and not read, each with its table."""
        own = [(self, name) for name in self._values if name not in self._asked]
        return own + [entry for table in self._tables for entry in table.unknown()]

    def _take(self, option: str, kind: Any, word: str) -> Any:
        self._asked.add(option)
        value = self._values.get(option)
        wrong_flag = isinstance(value, bool) and kind is not bool
        if value is not None and (wrong_flag or not isinstance(value, kind)):
            # The value is not quoted: it may be a secret in the wrong place.
            raise ConfigError(
                f"{self.name}.{option} is of the wrong type ({type(value).__name__})",
                remedy=f"give {word}",
            )
        return value

    def _missing(self, option: str) -> ConfigError:
        return ConfigError(f"{self.name} has no {option}", remedy=f"set {self.name}.{option}")

    def __reduce__(self) -> NoReturn:
        raise TypeError("options cannot be pickled or copied: they may hold secrets")

    def __repr__(self) -> str:
        return f"Options({self.name}: {', '.join(sorted(self._values))})"
