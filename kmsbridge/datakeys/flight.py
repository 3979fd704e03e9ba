"""Single flight: what many threads or tasks want at once is loaded once."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable
from contextvars import ContextVar, copy_context
from typing import Any, Generic, TypeVar

from kmsbridge import forks
from kmsbridge.clock import Deadline
from kmsbridge.errors import KmsBridgeError, KmsTimeout, ReentrantCall, forget_locals
from kmsbridge.threads import Outcome

T = TypeVar("T")


class Flight(Generic[T]):
    """A load in progress. It ends with a result, with a `KmsBridgeError`, or, where its leader was
    interrupted, with neither.
    """

    __slots__ = ("outcome",)

    def __init__(self) -> None:
        self.outcome: Outcome[T | None] = Outcome()

    def result(self) -> T | None:
        """Return the result of a load that has ended; None where the leader was interrupted. Raise a copy of
        its error.
        """
        error = self.outcome.error
        if error is not None:
            raise copied(error) from error.__cause__
        return self.outcome.get()


_leading: ContextVar[tuple[Any, ...]] = ContextVar("_leading", default=())
"""The flights that the code running in this context leads, or that wait for it."""


def copied(error: BaseException) -> BaseException:
    """Return a copy with a traceback and notes of its own: threads that raise one object would add to each
    other's.
    """
    mine = copy.copy(error).with_traceback(None)
    if hasattr(error, "__notes__"):
        mine.__notes__ = list(error.__notes__)
    return mine


class SingleFlight(Generic[T]):
    """Joins callers that want the same thing at the same time.

    All of them get the result of one load, or its `KmsBridgeError`. Where the leader is interrupted, the next
    caller leads. Nothing is remembered once a load has ended.
    """

    def __init__(self) -> None:
        self._flights: dict[Hashable, Flight[T]] = {}
        forks.watch(self)

    def run(self, name: Hashable, load: Callable[[], T], deadline: Deadline) -> T:
        """Return the result of `load()`, called here, or by the thread or task that began it before.

        Raise `KmsTimeout` where waiting for another takes longer than `deadline`, and `ReentrantCall` where
        it would never end: where the load itself led to this call.
        """
        while True:
            mine: Flight[T] = Flight()
            try:
                # In a context of its own, which ends with the load, whatever interrupts it.
                flight, results = copy_context().run(self._lead_if_first, name, mine, load)
            finally:
                self.give_up(name, mine)  # for an interrupt before the load; else it has ended
            if flight is mine:
                return results[0]
            check_not_leading(flight)
            if not flight.outcome.wait(deadline.left()):
                raise KmsTimeout(
                    "the data key that another thread or task began to load did not come in time",
                    remedy="check the network to the key service; the call may be repeated",
                )
            result = flight.result()
            if result is not None:
                return result

    def join(self, name: Hashable) -> tuple[Flight[T], bool]:
        """Return the flight for `name`, and whether the caller leads it and must call `lead`."""
        mine: Flight[T] = Flight()
        flight = self._board(name, mine)
        if flight is not mine:
            check_not_leading(flight)
        return flight, flight is mine

    def lead(self, name: Hashable, flight: Flight[T], load: Callable[[], T]) -> T:
        """Load, and hand the outcome to those who wait. To be run in a context of its own (`contextvars`)."""
        result: T | None = None
        shared: BaseException | None = None
        _leading.set((*_leading.get(), flight))
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
        """End a flight whose leader cannot load; another caller may lead."""
        self._end(name, flight, None, None)

    def _lead_if_first(
        self, name: Hashable, mine: Flight[T], load: Callable[[], T]
    ) -> tuple[Flight[T], list[T]]:
        _leading.set((*_leading.get(), mine))  # before a signal handler can come upon it
        flight = self._board(name, mine)
        return flight, [self.lead(name, mine, load)] if flight is mine else []

    def _board(self, name: Hashable, mine: Flight[T]) -> Flight[T]:
        return self._flights.setdefault(name, mine)

    def _end(self, name: Hashable, flight: Flight[T], result: T | None, error: BaseException | None) -> None:
        if self._flights.get(name) is flight:
            # Nobody else removes or replaces it: whoever comes for this name gets this one.
            self._flights.pop(name, None)
        flight.outcome.set(result, error)

    def after_fork(self) -> None:
        """Forget every flight: a forked child does not have the threads that lead them."""
        self._flights = {}


def check_not_leading(flight: Flight[T]) -> None:
    """Raise `ReentrantCall` where `flight` waits for the code that runs here, so that waiting for it would
    not end.
    """
    if any(flight is led for led in _leading.get()):
        raise ReentrantCall(
            "a data key was asked for by what runs while it is being loaded: a signal handler, a logging "
            "handler or a hook of the application's",
            remedy="let the handler put its work into a queue, or give it a cipher of its own",
        )
