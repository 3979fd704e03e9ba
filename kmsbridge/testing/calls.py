"""Remembers the calls that keys made, for tests to look at."""

from __future__ import annotations

from kmsbridge.observer import Call, CallResult, Observer


class CallLog(Observer):
    """An observer that keeps every call that ended, in that order."""

    def __init__(self) -> None:
        self.finished: list[tuple[Call, CallResult]] = []

    def call_finished(self, call: Call, result: CallResult) -> None:
        """Keep it."""
        self.finished.append((call, result))

    @property
    def last(self) -> CallResult:
        """How the latest call ended. Raises `IndexError` where none did."""
        return self.finished[-1][1]
