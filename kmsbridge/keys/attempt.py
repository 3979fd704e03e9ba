"""One attempt of a call: the driver's own code, and what came of it.

All of a driver's code runs on one thread, which may be another than the caller's, and what comes back is
plain data: the id that a driver reports of a request, like much that its client remembers, belongs to its
thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeVar

from kmsbridge.driver import (
    DriverError,
    ErrorDetails,
    ErrorKind,
    KeyDriver,
    Operation,
    OtherCall,
)
from kmsbridge.errors import KmsBridgeError, ProviderFailure
from kmsbridge.reports import report_calls_to, take_request_id
from kmsbridge.threads import Workers

E = TypeVar("E", bound=BaseException)

AT_ONCE: Final = 64
"""The most calls of one key that are under way at once."""
_LEAST_TIMEOUT: Final = 0.001
"""Seconds that an attempt gets although a late wake-up used up its time: no driver expects fewer."""


class Request(NamedTuple):
    """What is asked of a driver: an operation, by the name of the method that does it, with these
    arguments.
    """

    operation: Operation
    method: str
    arguments: tuple[Any, ...] = ()

    def __repr__(self) -> str:
        return f"Request({self.method})"  # the arguments can be key material


class Done(NamedTuple):
    """The driver answered."""

    result: Any
    request_id: str


class Failed(NamedTuple):
    """The driver let an exception out, or nothing. No `kind`: it could not say what the exception means."""

    kind: ErrorKind | None
    details: ErrorDetails
    cause: ProviderFailure | None
    what: str = ""
    """A sentence for the error's text, where there is more to say than the kind does; else empty."""


class Raised(NamedTuple):
    """An exception to go out as it is: the library's own, or one that the driver did not cause."""

    error: BaseException


Attempt = Done | Failed | Raised

_SILENT: Final = "the driver did not return in time"
_NO_THREAD: Final = f"all of the {AT_ONCE} calls that one key makes at once hang, so this one was not begun"


class Attempts:
    """Makes attempts with one key's driver.

    One that may wait has them on threads of the library's own: whatever the driver waits for, the caller
    waits until the time is over and no longer, and an exception that comes to the caller meanwhile, such as
    a signal handler's, reaches nobody else.

    `report` is given each call that the driver reports to have made with another key, on the thread of the attempt.
    """

    def __init__(self, clock: Callable[[], float], report: Callable[[OtherCall], None]) -> None:
        self._clock, self._report = clock, report
        self._workers = Workers("call", AT_ONCE)

    def make(self, driver: KeyDriver, request: Request, timeout: float) -> Attempt:
        """Make one attempt, of `timeout` seconds and a little more for the driver to tell of its own
        timeout.
        """
        timeout = max(timeout, _LEAST_TIMEOUT)
        if not driver.may_wait:
            return self._ask(driver, request, timeout)
        asked, begun = self._clock(), False

        def job() -> Attempt:
            nonlocal begun
            begun = True
            return self._ask(driver, request, max(timeout - (self._clock() - asked), _LEAST_TIMEOUT))

        outcome = self._workers.begin(job)
        try:
            outcome.wait(timeout * 1.1 + 0.05)
        finally:
            outcome.wanted = False  # what was not begun must not reach a service that returns
        if outcome.ended:
            return outcome.get()
        return Failed(ErrorKind.TIMEOUT, ErrorDetails(), None, _SILENT if begun else _NO_THREAD)

    def close(self, driver: KeyDriver, timeout: float) -> None:
        """Close the driver, for which one that may wait has `timeout` seconds, and let the threads end."""
        self._workers.close()
        if not driver.may_wait:
            driver.close()
            return
        closer = Workers("close", 1)  # those for calls may all hang
        outcome = closer.begin(driver.close)
        try:
            outcome.wait(timeout)
        finally:
            closer.close()
        if outcome.ended:
            outcome.get()

    def _ask(self, driver: KeyDriver, request: Request, timeout: float) -> Attempt:
        before = report_calls_to(self._report)
        try:
            return _ask(driver, request, timeout)
        finally:
            report_calls_to(before)


def _ask(driver: KeyDriver, request: Request, timeout: float) -> Attempt:
    """Call the driver on this thread; return its result, or how it failed."""
    take_request_id()
    try:
        result = getattr(driver, request.method)(*request.arguments, timeout=timeout)
        return Done(result, take_request_id())
    except BaseException as error:  # noqa: BLE001 - what is not the driver's goes out as it is
        failure = _without_this_frame(error)
    # Outside the except block, so that the provider's exception is not chained as context.
    try:
        if isinstance(failure, KmsBridgeError) or not isinstance(failure, Exception):
            return Raised(failure)
        if isinstance(failure, DriverError):
            request_id = failure.request_id or take_request_id()
            return _failed(failure.kind, ErrorDetails(failure.code, request_id, failure.remedy), failure)
        classified = _classified if driver.may_wait else _classified_here
        return classified(driver, request.operation, failure)
    finally:
        del failure


def _classified(driver: KeyDriver, operation: Operation, failure: Exception) -> Failed:
    """A driver's own fault in telling what failed must not hide that something did."""
    try:
        kind = driver.classify(failure, operation)
    except Exception as second:  # noqa: BLE001 - whatever it is
        return Failed(None, ErrorDetails(), ProviderFailure.of(_without_this_frame(second)))
    try:
        details: Any = driver.error_details(failure)
    except Exception:  # noqa: BLE001 - the failure is told, if without its details
        details = None
    return _failed(kind, details, failure)


def _classified_here(driver: KeyDriver, operation: Operation, failure: Exception) -> Attempt:
    """The same on the caller's own thread, where the exception, or one that comes now, may be somebody
    else's.
    """
    kind = driver.classify(failure, operation)
    if kind is None:
        return Raised(failure)
    return _failed(kind, driver.error_details(failure), failure)


def _failed(kind: Any, details: Any, failure: Exception) -> Failed:
    return Failed(
        kind if isinstance(kind, ErrorKind) else None,
        details if isinstance(details, ErrorDetails) else ErrorDetails(),
        ProviderFailure.of(failure),
    )


def _without_this_frame(error: E) -> E:
    """Return `error` without the frame that caught it: that one still runs, and could not be made to forget
    what it holds.
    """
    trace = error.__traceback__
    return error.with_traceback(trace.tb_next if trace is not None else None)
