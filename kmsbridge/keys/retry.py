"""Decides whether a call that failed is made again, and after how long a pause."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from kmsbridge.clock import Deadline, jitter
from kmsbridge.driver import ErrorKind
from kmsbridge.keys.health import OUTAGES, ServiceHealth
from kmsbridge.keys.limiter import Turns

RETRIED: Final = OUTAGES | {ErrorKind.THROTTLED}
"""The kinds of failure after which a call may be made again."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 1.0


class Retries:
    """The attempts of one call.

    After an outage there are up to `most` attempts in all, retries being a tenth of the calls at most, and
    none once the breaker opens. Refusals because of the rate have a rule of their own, and count for none of
    that. With `most` 1 there is one attempt, whatever becomes of it.
    """

    def __init__(self, health: ServiceHealth, deadline: Deadline, most: int) -> None:
        self.made = 0
        """How many attempts were made."""
        self.request_id = ""
        """The provider's id of the last one; empty where it gave none."""
        self._health, self._deadline = health, deadline
        self._most = most
        self._outages = 0
        self._turns = Turns(health.limiter, once=most == 1)

    def wait_for_turn(self, sleep: Callable[[float], None]) -> bool:
        """Wait until an attempt may be made. Return False where the call gives up instead."""
        while pause := self._turns.wait():
            if pause >= self._deadline.left():
                return False
            sleep(pause)
        return pause is not None

    def answered(self, kind: ErrorKind | None, request_id: str) -> None:
        """Count an attempt that ended: the kind of its failure, None for a success."""
        if not self.made:
            self._health.budget.earn()
        self.made += 1
        self.request_id = request_id
        self._health.learn(kind)

    def pause_after(self, kind: ErrorKind) -> float | None:
        """Return the seconds to wait before the next attempt; None where this failure is the call's."""
        if kind is ErrorKind.THROTTLED:
            pause = self._turns.throttled()
            return pause if pause is not None and pause < self._deadline.left() else None
        return self._pause_after_outage() if kind in OUTAGES else None

    def _pause_after_outage(self) -> float | None:
        self._outages += 1
        pause = jitter(0, min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**self._outages))
        health = self._health
        may = self._outages < self._most and pause < self._deadline.left()
        # Last, because they count: whoever is let through by the breaker is its probe.
        return pause if may and health.breaker.allows() and health.budget.spend() else None
