"""Keeps calls away from a key service that fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal, NamedTuple

from kmsbridge.clock import jitter

WINDOW: Final = 10
"""Seconds over which calls are counted."""
LEAST: Final = 20
"""Calls in the window before it can open."""
PAUSE: Final = 5.0
"""Seconds, a fifth more or less, between two probes of a service that fails."""


class _Second(NamedTuple):
    second: int
    calls: int
    failures: int


class Breaker:
    """Keeps calls away from one key's service while it fails; safe for threads.

    It opens when at least half of 20 or more calls in 10 s failed because the service did not do its part, or
    20 in a row: a busy caller's earlier successes say nothing of a service that is gone. Open, it lets one
    call through about every 5 s, and the first that succeeds closes it. A service that refuses a caller
    answers, so refusals count as successes, also those for the rate of calls.

    Without a lock, as the `Limiter`: what is counted is replaced whole, never changed.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seconds: tuple[_Second, ...] = ()
        self._in_a_row = 0
        self._open = False
        self._next_probe = 0.0
        self._failing_since: float | None = None

    @property
    def unhealthy(self) -> bool:
        """Whether the service failed and has not succeeded since."""
        return self._failing_since is not None

    @property
    def state(self) -> Literal["closed", "open", "half-open"]:
        """`closed` where calls are made, `open` where none is, `half-open` where the next one is the probe."""
        if not self._open:
            return "closed"
        return "open" if self.next_probe_in else "half-open"

    @property
    def failing_for(self) -> float:
        """Seconds since the first of the failures that no success has followed."""
        since = self._failing_since
        return 0.0 if since is None else self._clock() - since

    @property
    def next_probe_in(self) -> float:
        """Seconds until a call will be let through again."""
        return max(0.0, self._next_probe - self._clock()) if self._open else 0.0

    def allows(self) -> bool:
        """Whether a call may be made; where it is open, the one who is let through is the probe."""
        return not self._open or self.take_probe()

    def take_probe(self) -> bool:
        """Whether it is time to see how a failing service does; true for one caller at a time."""
        now = self._clock()
        if self._failing_since is None or now < self._next_probe:
            return False
        self._next_probe = now + _pause()
        return True

    def succeeded(self) -> None:
        """The service answered a call."""
        if self._open:
            self._open, self._seconds = False, ()
        self._failing_since = None
        self._in_a_row = 0
        self._count(0)

    def failed(self) -> None:
        """The service did not do its part."""
        now = self._clock()
        if self._failing_since is None:
            self._failing_since, self._next_probe = now, now + _pause()
        self._count(1)
        if not self._open and self._is_enough():
            self._open, self._next_probe = True, now + _pause()

    def _is_enough(self) -> bool:
        seconds = self._seconds
        calls, failures = sum(each.calls for each in seconds), sum(each.failures for each in seconds)
        return calls >= LEAST and (2 * failures >= calls or self._in_a_row >= LEAST)

    def _count(self, failures: int) -> None:
        second, before = int(self._clock()), self._seconds
        if before and before[-1].second <= second - WINDOW:
            self._in_a_row = 0
        self._in_a_row += failures
        if before and before[-1].second == second:
            _, calls, failed = before[-1]
            self._seconds = (*before[:-1], _Second(second, calls + 1, failed + failures))
        else:
            recent = [each for each in before if each.second > second - WINDOW]
            self._seconds = (*recent, _Second(second, 1, failures))


def _pause() -> float:
    # So that many hosts that lost a service at once do not all come back at once.
    return jitter(0.8 * PAUSE, 1.2 * PAUSE)
