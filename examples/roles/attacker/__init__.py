"""Tries every attack with everything that an attacker holds, and counts the values that it decrypts."""

from __future__ import annotations

import functools
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from examples.roles import customers
from examples.roles.attacker import library, openbao, opener, search

_TOKEN: Final = re.compile(rb"(?<![\w.])s\.[A-Za-z0-9]{24}(?![\w.])")


class Loot(NamedTuple):
    """The possessions of an attacker.

    `files` are by name, as in the host's folder. `memory` is that of a process. `secrets` are what their code found
    inside one, and `opened` the places that it decrypted there.
    """

    database: Path
    server: str
    files: Mapping[str, bytes] = {}
    memory: bytes = b""
    secrets: Iterable[bytes] = ()
    opened: Iterable[str] = ()


def attack(loot: Loot) -> set[str]:
    """Return the places, as `ID/COLUMN`, of all values that can be decrypted with the loot."""
    messages = customers.load(loot.database)
    everything = {f"{place.id}/{place.column}" for place in messages}
    found: set[str] = set()
    for more in _attacks(loot, messages):
        found |= more
        if found == everything:
            break
    return found


def _attacks(loot: Loot, messages: customers.Values) -> Iterator[set[str]]:
    """Try one thing after the other, and yield what each opens."""
    tried = _opener(tuple(messages.items()))
    yield set(loot.opened) | tried.open(loot.secrets)
    with tempfile.TemporaryDirectory() as folder:
        yield library.open_with(Path(folder), loot.files, messages)
    for token in {each for data in (*loot.files.values(), loot.memory) for each in _TOKEN.findall(data)}:
        yield tried.open(openbao.secrets(loot.server, token.decode(), loot.files, messages))
    for data in (*loot.files.values(), loot.database.read_bytes()):
        yield tried.open(search.candidates(data))
    yield tried.open(search.candidates_in_memory(loot.memory))


@functools.cache
def _opener(messages: tuple[tuple[customers.Place, bytes], ...]) -> opener.Opener:
    """Return one for all attacks on the same messages: no key is tried twice."""
    return opener.Opener(dict(messages))
