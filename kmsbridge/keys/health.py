"""The breaker, the retry budget and the limiter of one key, and what they learn from each answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from kmsbridge.driver import ErrorKind
from kmsbridge.keys.breaker import Breaker
from kmsbridge.keys.budget import RetryBudget
from kmsbridge.keys.limiter import Limiter

OUTAGES: Final = frozenset({ErrorKind.UNAVAILABLE, ErrorKind.TIMEOUT})
"""Kinds of failure after which a call is tried again, a few times, and that open the breaker."""


class Health:
    """A key's breaker, retry budget and limiter. `learn` is called for every attempt that the driver ended."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.breaker = Breaker(clock)
        self.budget = RetryBudget()
        self.limiter = Limiter(clock)

    def learn(self, kind: ErrorKind | None) -> None:
        """The kind of an attempt's failure, None for a success."""
        if kind in OUTAGES:
            self.breaker.failed()
        else:
            self.breaker.succeeded()
        self.limiter.answered(throttled=kind is ErrorKind.THROTTLED)
