"""How many retries there may be."""

from __future__ import annotations

_SHARE, _MOST = 0.1, 10.0


class RetryBudget:
    """Lets retries be at most a tenth of the calls, after a few to begin with.

    When a service fails for everyone, retries would multiply the load that it must recover under. Without a
    lock, as the `Limiter`.
    """

    def __init__(self) -> None:
        self._savings = _MOST

    def earn(self) -> None:
        """A call was made."""
        self._savings = min(_MOST, self._savings + _SHARE)

    def spend(self) -> bool:
        """Whether one retry may be made now."""
        if self._savings < 1:
            return False
        self._savings -= 1
        return True
