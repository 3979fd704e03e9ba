"""Makes the calls of one key: retried, within a deadline, and told to an observer."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from kmsbridge.clock import Deadline
from kmsbridge.context import EMPTY, EncryptionContext
from kmsbridge.driver import Capability, ErrorDetails, ErrorKind, KeyDriver, Operation, OtherCall
from kmsbridge.errors import KmsBridgeError
from kmsbridge.keys.attempt import Attempts, Done, Failed, Raised, Request
from kmsbridge.keys.health import ServiceHealth
from kmsbridge.keys.identity import KeyIdentity
from kmsbridge.keys.retry import Retries
from kmsbridge.keys.translation import breaker_open, deadline_passed, error_class, key_closed, translate_error
from kmsbridge.keys.validation import FaultyAnswer, check_batch, faulty_driver
from kmsbridge.observer import Call, CallResult, Observer
from kmsbridge.policy import CallPolicy

T = TypeVar("T")

VERIFY: Final = "verify"
"""The purpose of a call that asks the service which version wrapped a data key; its operation is `rewrap`."""
_NOT_SENT: Final = Failed(ErrorKind.THROTTLED, ErrorDetails(), None)


class KeyCalls:
    """The calls of one key, whose service they learn about: whether it answers, and how fast it takes calls.

    An exception that neither the driver nor the library caused, such as a signal handler's, comes out at once
    and unchanged; that call counts for nothing, and is not told.
    """

    def __init__(
        self,
        identity: KeyIdentity,
        policy: CallPolicy,
        observer: Observer,
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        self._identity, self._policy, self._observer = identity, policy, observer
        self._clock, self._sleep = clock, sleep
        # Of attempts on other threads, told on the thread of a caller: one that was not waited for may end at any time.
        self._others: deque[OtherCall] = deque()
        self._attempts = Attempts(clock, self._others.append)
        self._closed = False
        self.health = ServiceHealth(clock)

    def forget_health(self) -> None:
        """Begin anew, as a forked child does."""
        self._others.clear()  # the parent tells of them
        self.health = ServiceHealth(self._clock)

    def call(
        self,
        driver: KeyDriver,
        call: Call,
        arguments: tuple[Any, ...],
        check: Callable[[Any], T],
        deadline: Deadline,
        *,
        attempts: int | None = None,
        probing: bool = False,
    ) -> T:
        """Return `check(result)` of what the driver's method for this operation returns, given `arguments`.

        At most `attempts` are made; the policy's number where that is None. `probing` asks although the
        breaker is open. Raise a `KmsError`, or what `check` raises.
        """
        method = f"{call.operation}_many" if call.batch else call.operation
        if call.purpose == VERIFY:
            method = "is_current"
        request = Request(call.operation, method, arguments)
        health = self._health_for(driver, call.operation)
        retries = Retries(
            health, deadline, min(attempts or self._policy.max_attempts, self._policy.max_attempts)
        )
        started = self._clock()
        self._check_open()
        try:
            self._observer.call_started(call)
            self._check_may_ask(call.operation, health, deadline, probing=probing)
            result = self._checked(call.operation, check, self._answer(driver, request, retries, deadline))
        except KmsBridgeError as error:
            self._tell(call, type(error).__name__, retries, started)
            raise
        self._tell(call, "ok", retries, started, getattr(result, "version", ""))
        return result

    def call_batch(
        self,
        driver: KeyDriver,
        call: Call,
        items: Sequence[Any],
        check: Callable[[int, Any], T],
        deadline: Deadline,
    ) -> list[T | KmsBridgeError]:
        """Return `check(number, result)` of each of `call.batch` items, or its error in its place.

        It is one call for observers. Raise a `KmsError` where the batch as a whole failed.
        """
        started = self._clock()
        results = self.call(driver, call, (items,), lambda whole: check_batch(whole, call.batch), deadline)
        seconds = self._clock() - started
        return [
            self._item(call.operation, partial(check, number), result, seconds)
            for number, result in enumerate(results)
        ]

    def close(self, driver: KeyDriver, timeout: float) -> None:
        """Close the driver, for which it has `timeout` seconds, and make no more calls."""
        self._closed = True
        self._attempts.close(driver, timeout)
        self._tell_of_others()

    def _health_for(self, driver: KeyDriver, operation: str) -> ServiceHealth:
        """Return the health to consult: one of its own for an operation that needs no service."""
        is_local = operation in ("wrap", "resolve") and Capability.LOCAL_WRAP in driver.capabilities
        return ServiceHealth(self._clock) if is_local else self.health

    def _check_open(self) -> None:
        if self._closed:
            raise key_closed()

    def _check_may_ask(
        self, operation: str, health: ServiceHealth, deadline: Deadline, *, probing: bool
    ) -> None:
        if not deadline.left():
            raise deadline_passed(operation, self._identity)
        if not probing and not health.breaker.allows():
            raise breaker_open(operation, self._identity, health.breaker)

    def _answer(self, driver: KeyDriver, request: Request, retries: Retries, deadline: Deadline) -> Any:
        """Return what the driver returns, after as many attempts as it takes and there may be."""
        started, failure = self._clock(), _NOT_SENT
        while retries.wait_for_turn(self._sleep):
            self._check_open()  # another thread may have closed it meanwhile
            seconds = min(self._policy.attempt_timeout, deadline.left())
            attempt = self._attempts.make(driver, request, seconds)
            self._tell_of_others()
            if isinstance(attempt, Raised):
                raise attempt.error
            if isinstance(attempt, Done):
                retries.answered(None, attempt.request_id)
                return attempt.result
            failure = attempt
            if failure.kind is None:
                raise self._faulty(request.operation, "its classify() gave no ErrorKind") from failure.cause
            retries.answered(failure.kind, failure.details.request_id)
            pause = retries.pause_after(failure.kind)
            if pause is None:
                break
            self._sleep(pause)
        raise translate_error(
            failure,
            request.operation,
            self._identity,
            attempts=retries.made,
            seconds=self._clock() - started,
        ) from failure.cause

    def _item(
        self, operation: Operation, check: Callable[[Any], T], result: Any, seconds: float
    ) -> T | KmsBridgeError:
        if isinstance(result, ErrorKind):
            failure = Failed(result, ErrorDetails(), None)
            return translate_error(failure, operation, self._identity, attempts=1, seconds=seconds)
        try:
            return self._checked(operation, check, result)
        except KmsBridgeError as error:
            return error

    def _checked(self, operation: str, check: Callable[[Any], T], answer: Any) -> T:
        try:
            return check(answer)
        except FaultyAnswer as fault:
            faulty = self._faulty(operation, fault)
        raise faulty

    def _faulty(self, operation: str, what: object) -> KmsBridgeError:
        identity = self._identity
        return faulty_driver(what, scheme=identity.scheme, key_id=identity.key_id, operation=operation)

    def _tell(self, call: Call, outcome: str, retries: Retries, started: float, version: str = "") -> None:
        result = CallResult(
            outcome=outcome,
            seconds=self._clock() - started,
            attempts=retries.made,
            request_id=retries.request_id,
            key_version=version or call.key_version,
            key_id=self._identity.key_id,
        )
        self._observer.call_finished(call, result)

    def _tell_of_others(self) -> None:
        """Tell of the calls that the driver made with other keys, which nobody else tells of."""
        while self._others:
            try:
                other = self._others.popleft()
            except IndexError:  # another thread was faster
                return
            call = Call(other.operation, other.key_id, other.context, other.key_version)
            result = CallResult(
                outcome="ok" if other.kind is None else error_class(other.kind).__name__,
                seconds=other.seconds,
                attempts=1,
                request_id=other.request_id,
                key_version=other.key_version,
            )
            self._observer.call_started(call)
            self._observer.call_finished(call, result)


def common_context(items: Sequence[tuple[Any, EncryptionContext]]) -> EncryptionContext:
    """Return the context of all items, for observers; an empty one where they have different ones."""
    contexts = {context for _, context in items}
    return contexts.pop() if len(contexts) == 1 else EMPTY
