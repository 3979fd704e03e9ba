"""What a key service refused a moment ago: wrapped keys that it called not authentic, or would not rewrap."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Final

from kmsbridge import forks
from kmsbridge.clock import age

SECONDS: Final = 5.0
"""How long a refusal is remembered: a message that is asked for again and again costs no call each time."""
MOST: Final = 1000


class Refusals:
    """Remembers refusals, and nothing else: what a service could or would not answer may be otherwise next time."""

    def __init__(self, clock: Callable[[], float] = age) -> None:
        self._clock = clock
        self._until: dict[Hashable, float] = {}
        forks.watch(self)

    def add(self, name: Hashable) -> None:
        """The wrapped key of this name was refused just now, or is still remembered to have been."""
        while len(self._until) >= MOST:
            for oldest in list(self._until)[: MOST // 10]:
                self._until.pop(oldest, None)
        self._until.setdefault(name, self._clock() + SECONDS)

    def holds(self, name: Hashable) -> bool:
        """Whether the wrapped key of this name was refused a moment ago."""
        until = self._until.get(name)
        if until is None or self._clock() < until:
            return until is not None
        self._until.pop(name, None)
        return False

    def after_fork(self) -> None:
        """A child asks for itself."""
        self._until = {}
