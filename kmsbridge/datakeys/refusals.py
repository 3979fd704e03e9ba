"""Remembers which wrapped keys a key service refused a moment ago, as not authentic or not to be
rewrapped.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Final

from kmsbridge import forks
from kmsbridge.clock import age

SECONDS: Final = 5.0
"""How long a refusal is remembered: a message that is asked for again and again costs no call each time."""
MOST: Final = 1000


class Refusals:
    """Remembers refusals. Failures of a service are not remembered, because the next call may succeed."""

    def __init__(self, clock: Callable[[], float] = age) -> None:
        self._clock = clock
        self._until: dict[Hashable, float] = {}
        forks.watch(self)

    def add(self, name: Hashable) -> None:
        """Remember that the wrapped key of this name was refused; a refusal that is remembered already keeps
        its time.
        """
        while len(self._until) >= MOST:
            for oldest in list(self._until)[: MOST // 10]:
                self._until.pop(oldest, None)
        self._until.setdefault(name, self._clock() + SECONDS)

    def holds(self, name: Hashable) -> bool:
        """Return whether the wrapped key of this name was refused a moment ago."""
        until = self._until.get(name)
        if until is None or self._clock() < until:
            return until is not None
        self._until.pop(name, None)
        return False

    def after_fork(self) -> None:
        """Forget every refusal: a forked child asks for itself."""
        self._until = {}
