"""How fast a key service takes calls that refuses some of them because of their rate."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from kmsbridge.clock import jitter

SPAN: Final = 3.0
"""Seconds after which what was counted counts for a third (1/e)."""
_MORE, _FEW = 3.5, 5.0
_PAUSE: Final = 1.0
"""Seconds: the longest wait before the next look."""
SENDS, LOOKS = 5, 6
"""How often one call is sent, and how often it looks whether it may be, before it gives up."""


class Limiter:
    """Lets through at most three and a half times as many calls as the service takes.

    The rate is not lowered at each refusal and raised again, as it is for a network: where others share the
    quota, refusals do not depend on our rate, and it would fall to nothing. Where the service takes fewer
    than two calls in seven, most calls wait here, so that it is not flooded. Where nothing was refused in the
    last seconds, nobody waits. A service that fails otherwise, or does not answer, is none that throttles.

    Nothing here is locked, since a signal handler that calls while it is locked would wait for ever: two
    threads that count in one moment may count one, and it is a rule of thumb.
    """

    def __init__(self, clock: Callable[[], float], draw: Callable[[float, float], float] = jitter) -> None:
        self._clock, self._draw = clock, draw
        self._refused = False
        self._since = 0.0
        self._looks = self._accepts = 0.0

    @property
    def throttled(self) -> bool:
        """Whether the service refused calls because of their rate in the last seconds."""
        if self._refused:
            self._fade()
        return self._refused

    def allows(self) -> bool:
        """Whether a call may be sent now."""
        if not self._refused:
            return True
        self._fade()
        if self._draw(0.0, 1.0) * self._looks <= _MORE * self._accepts + _FEW:
            return True
        self._looks += 1
        return False

    def answered(self, *, throttled: bool) -> None:
        """A call came back: refused because of the rate, or with anything else."""
        if not (throttled or self._refused):
            return
        self._refused = True
        self._fade()
        self._looks += 1
        self._accepts += not throttled

    def pause(self) -> float:
        """Seconds to wait before the next look; random, so that those who wait do not come back together."""
        return self._draw(0.0, _PAUSE)

    def _fade(self) -> None:
        now = self._clock()
        share = math.exp((self._since - now) / SPAN)
        self._since = now
        self._looks *= share
        self._accepts *= share
        if self._looks < 1 / _FEW:
            self._refused = False


class Turns:
    """One call's turns with the limiter: how often it was sent, and let others go first."""

    def __init__(self, limiter: Limiter, *, once: bool = False) -> None:
        self._limiter = limiter
        self._sends, self._looks = (1, 1) if once else (SENDS, LOOKS)
        self._sent = self._denied = 0

    def wait(self) -> float | None:
        """0.0 where it may be sent now; else the seconds until the next look, or None where it gives up."""
        if self._limiter.allows():
            return 0.0
        self._denied += 1
        return self._limiter.pause() if self._denied < self._looks else None

    def throttled(self) -> float | None:
        """It was sent and refused: the seconds until the next look, or None where it gives up."""
        self._sent += 1
        return self._limiter.pause() if self._sent < self._sends else None
