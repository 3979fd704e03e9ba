"""Errors that name the nearest valid word."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

from kmsbridge.driver import Options
from kmsbridge.errors import ConfigError, quoted

_SHOWN = 20
_LONGEST = 80


def dotted(table: str, word: str) -> str:
    """A dotted name; a word that would break a line or hide its ends is quoted."""
    plain = word.isprintable() and word.strip() == word != "" and len(word) <= _LONGEST
    return (f"{table}." if table else "") + (word if plain else quoted(word))


def advice(word: str, known: Iterable[str]) -> str:
    """Which of the valid words was probably meant, and which there are."""
    import difflib

    words = sorted(known)
    if not words:
        return "remove it"
    plain = {each.lower().replace("-", "_"): each for each in words}
    near = difflib.get_close_matches(word[:_LONGEST].lower().replace("-", "_"), plain, n=1, cutoff=0.5)
    valid = ", ".join(words[:_SHOWN]) + (", ..." if len(words) > _SHOWN else "")
    return f"did you mean {plain[near[0]]!r}? valid: {valid}" if near else f"valid: {valid}"


def unknown_option_error(options: Options, known: list[str], name: str) -> ConfigError:
    """The error for an option that the driver never asked for; `known` are those it did ask for."""
    return ConfigError(
        f"{dotted(options.name, name)} is not an option of this key", remedy=advice(name, known)
    )


def check_words(table: Iterable[str], known: Iterable[str], name: str, kind: str) -> None:
    """Raise `ConfigError` for a word in `table` that is not known."""
    valid = list(known)
    for word in table:
        if word not in valid:
            raise ConfigError(f"{dotted(name, word)} is not a {kind}", remedy=advice(word, valid))


@contextlib.contextmanager
def about(prefix: str) -> Iterator[None]:
    """Put `prefix` in front of the text of a `ConfigError`."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(prefix + error.message, remedy=error.remedy) from None
