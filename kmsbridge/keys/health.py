"""What is known of how a key's service does: its breaker, retry budget and limiter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from kmsbridge.driver import ErrorKind
from kmsbridge.keys.breaker import Breaker
from kmsbridge.keys.limiter import Limiter

OUTAGES: Final = frozenset({ErrorKind.UNAVAILABLE, ErrorKind.TIMEOUT})
"""Kinds of failure after which a call is made again, a few times, and that open the breaker."""

_RETRY_SHARE, _MOST_SAVED = 0.1, 10.0


class RetryBudget:
    """Lets retries be at most a tenth of the calls, after a few to begin with.

    When a service fails for everyone, retries would multiply the load that it must recover under. Without a
    lock, as the `Limiter`.
    """

    def __init__(self) -> None:
        self._savings = _MOST_SAVED

    def earn(self) -> None:
        """Count a call that was made."""
        self._savings = min(_MOST_SAVED, self._savings + _RETRY_SHARE)

    def spend(self) -> bool:
        """Return whether one retry may be made now, and count it."""
        if self._savings < 1:
            return False
        self._savings -= 1
        return True


class ServiceHealth:
    """A key's breaker, retry budget and limiter. `learn` is called for every attempt that the driver
    ended.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.breaker = Breaker(clock)
        self.budget = RetryBudget()
        self.limiter = Limiter(clock)

    def learn(self, kind: ErrorKind | None) -> None:
        """Count an attempt: the kind of its failure, None for a success."""
        if kind in OUTAGES:
            self.breaker.failed()
        else:
            self.breaker.succeeded()
        self.limiter.answered(throttled=kind is ErrorKind.THROTTLED)
