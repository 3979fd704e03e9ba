"""A record of the calls that keys made, for tests to examine."""

from __future__ import annotations

from kmsbridge.observer import Call, CallResult, Observer


class CallLog(Observer):
    """An observer that records calls of keys: `finished` lists them in the order in which they ended."""

    def __init__(self) -> None:
        self.finished: list[tuple[Call, CallResult]] = []

    def call_finished(self, call: Call, result: CallResult) -> None:
        """Append the call to `finished`."""
        self.finished.append((call, result))

    @property
    def last(self) -> CallResult:
        """The result of the latest call. Raises `IndexError` if no call has ended."""
        return self.finished[-1][1]
