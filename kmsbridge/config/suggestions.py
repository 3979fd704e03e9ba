"""Errors about unknown names, which suggest the nearest valid one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

from kmsbridge.driver import Options
from kmsbridge.errors import ConfigError, quoted

_SHOWN = 20
_LONGEST = 80


def dotted_name(table: str, name: str) -> str:
    """Return `table.name`, with the name in quotes unless it is short and printable, without outer spaces."""
    plain = name.isprintable() and name.strip() == name != "" and len(name) <= _LONGEST
    return (f"{table}." if table else "") + (name if plain else quoted(name))


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return a remedy that names the valid name nearest to `name`, and the valid names."""
    import difflib

    names = sorted(known)
    if not names:
        return "remove it"
    plain = {valid_name.lower().replace("-", "_"): valid_name for valid_name in names}
    near = difflib.get_close_matches(name[:_LONGEST].lower().replace("-", "_"), plain, n=1, cutoff=0.5)
    valid = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
    return f"did you mean {plain[near[0]]!r}? valid: {valid}" if near else f"valid: {valid}"


def unknown_option_error(options: Options, known: list[str], name: str) -> ConfigError:
    """Return the error for an option that the driver did not read; `known` are those that it read."""
    return ConfigError(
        f"{dotted_name(options.name, name)} is not an option of this key", remedy=suggestion(name, known)
    )


def check_names(names: Iterable[str], known: Iterable[str], table: str, kind: str) -> None:
    """Raise `ConfigError` for a name that is not in `known`. `table` and `kind` are for the error's text."""
    valid = list(known)
    for name in names:
        if name not in valid:
            raise ConfigError(f"{dotted_name(table, name)} is not a {kind}", remedy=suggestion(name, valid))


@contextlib.contextmanager
def prefixed_errors(prefix: str) -> Iterator[None]:
    """Prefix the text of a `ConfigError` that is raised within the block."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(prefix + error.message, remedy=error.remedy) from None
