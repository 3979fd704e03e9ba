"""One call at a time for what many want at once."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from kmsbridge import forks
from kmsbridge.errors import KmsBridgeError, forget_locals

T = TypeVar("T")


class Flight(Generic[T]):
    """One load that is under way. Whoever made it lands it; the first landing counts."""

    __slots__ = ("_callbacks", "_done", "_error", "_lock", "_result")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._callbacks: list[Callable[[], None]] = []
        self._result: list[T] = []
        self._error: BaseException | None = None

    def outcome(self) -> T | None:
        """The result; None where the leader was lost. Raises a copy of the leader's error.

        A copy, because an exception that several threads raise grows all their tracebacks.
        """
        self._done.wait()
        if self._error is not None:
            raise _for_waiter(self._error) from self._error.__cause__
        return self._result[0] if self._result else None

    def when_done(self, callback: Callable[[], None]) -> None:
        """Have `callback()` called, on any thread, once `outcome` will not wait."""
        with self._lock:
            if not self._done.is_set():
                self._callbacks.append(callback)
                return
        callback()

    def land(self, result: T | None, error: BaseException | None) -> None:
        """Set the outcome; both None says that there is no answer."""
        with self._lock:
            if self._done.is_set():
                return
            if result is not None:
                self._result.append(result)
            self._error = error
            self._done.set()
        for callback in self._callbacks:
            callback()


def _for_waiter(error: BaseException) -> BaseException:
    """A copy with a life of its own: its notes, its traceback, and not yet audited as a refusal."""
    mine = copy.copy(error).with_traceback(None)
    if isinstance(mine, KmsBridgeError):
        mine.audited = False
    if hasattr(error, "__notes__"):
        mine.__notes__ = list(error.__notes__)
    return mine


class SingleFlight(Generic[T]):
    """Joins those that want the same thing at the same time.

    All get the answer of one load, or its `KmsBridgeError`. A leader that is interrupted gives no
    answer, and the next one leads; nothing is remembered once a load has ended.
    """

    def __init__(self) -> None:
        self._flights: dict[Hashable, Flight[T]] = {}
        self._lock = threading.Lock()
        forks.watch(self)

    def run(self, name: Hashable, load: Callable[[], T]) -> T:
        """The result of `load()`, called here or by whoever is already at it."""
        while True:
            mine: Flight[T] = Flight()
            try:
                flight = self._board(name, mine)
                if flight is mine:
                    return self.lead(name, mine, load)
            finally:
                self.give_up(name, mine)  # for an interrupt before the load; else it has landed
            result = flight.outcome()
            if result is not None:
                return result

    def join(self, name: Hashable) -> tuple[Flight[T], bool]:
        """The flight for `name`, and whether the caller leads it and must call `lead`."""
        mine: Flight[T] = Flight()
        flight = self._board(name, mine)
        return flight, flight is mine

    def lead(self, name: Hashable, flight: Flight[T], load: Callable[[], T]) -> T:
        """Load, and tell those who wait."""
        result: T | None = None
        shared: BaseException | None = None
        try:
            result = load()
            return result
        except KmsBridgeError as error:
            forget_locals(error)  # before others get hold of what it leads to
            shared = error
            raise
        finally:
            self._end(name, flight, result, shared)

    def give_up(self, name: Hashable, flight: Flight[T]) -> None:
        """The leader cannot load at all; someone else may lead."""
        self._end(name, flight, None, None)

    def _board(self, name: Hashable, mine: Flight[T]) -> Flight[T]:
        with self._lock:
            return self._flights.setdefault(name, mine)

    def _end(self, name: Hashable, flight: Flight[T], result: T | None, error: BaseException | None) -> None:
        with self._lock:
            if self._flights.get(name) is flight:
                del self._flights[name]
        flight.land(result, error)

    def after_fork(self) -> None:
        """The threads that flew are not in the child."""
        self._lock = threading.Lock()
        self._flights = {}
