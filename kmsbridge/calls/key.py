"""A configured key, and how it is called."""

from __future__ import annotations

import hmac
import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, TypeVar

from kmsbridge import errors, forks
from kmsbridge.calls import checks, meaning
from kmsbridge.calls.breaker import Breaker
from kmsbridge.calls.budget import RetryBudget
from kmsbridge.driver import (
    Capability,
    EncryptionContext,
    ErrorDetails,
    ErrorKind,
    KeyDescription,
    KeyDriver,
    KeyState,
    WrappedKey,
    take_request_id,
)
from kmsbridge.errors import KmsBridgeError, KmsError, LimitExceeded
from kmsbridge.message import MAX_KEY_VERSION, MAX_WRAPPED
from kmsbridge.policy import CallPolicy

T = TypeVar("T")

_BACKOFF_FIRST, _BACKOFF_MOST = 0.1, 1.0
_LEAST_TIMEOUT: Final = 0.001
"""Seconds that an attempt gets although a late wake-up used up its time: no driver expects fewer."""
_BOUND: Final = 32
"""Bytes of SHA-256 that travel with the payload to a provider that binds no context."""


class Answer(NamedTuple):
    """What the audit trail wants to know of a call that the service answered."""

    request_id: str
    attempts: int


_NONE: Final = Answer("", 0)


class Key:
    """One configured key: its driver, behind the rules that hold for every driver.

    `name` is the key's name in the configuration. Threads may share a Key; a forked child gets a
    driver of its own at its first call.
    """

    def __init__(
        self,
        name: str,
        open_driver: Callable[[], KeyDriver],
        policy: CallPolicy | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.name = name
        self._open = open_driver
        self._policy = policy or CallPolicy()
        self._clock, self._sleep = clock, sleep
        self._key_id = ""
        self._last = threading.local()
        self._closed = False
        self._lock = threading.Lock()
        self._budget = RetryBudget()
        self._breaker = Breaker(clock)
        self._driver: KeyDriver | None = open_driver()
        forks.watch(self)

    @property
    def driver(self) -> KeyDriver:
        """The driver of this process."""
        return self._driver or self._reopen()

    def _reopen(self) -> KeyDriver:
        with self._lock:
            if self._driver is None:
                self._driver = self._open()
            return self._driver

    def after_fork(self) -> None:
        """A child opens a driver of its own, when it first needs one."""
        self._lock = threading.Lock()
        self._budget = RetryBudget()
        self._breaker = Breaker(self._clock)
        # Kept, because ending it could say goodbye on the connections that the parent goes on using.
        self._parents_driver, self._driver = self._driver, None

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What the driver can do."""
        return self.driver.capabilities

    @property
    def binds_context(self) -> bool:
        """Whether the provider authenticates the context by itself."""
        return Capability.BINDS_CONTEXT in self.capabilities

    @property
    def max_plaintext(self) -> int:
        """The largest payload of one wrap, in bytes."""
        return self.driver.max_plaintext - (0 if self.binds_context else _BOUND)

    @property
    def key_id(self) -> str:
        """The canonical id; the first use may cost a call."""
        return self.identify()

    @property
    def known_id(self) -> str:
        """The canonical id; empty where it would cost a call."""
        return self._key_id

    @property
    def ailing(self) -> bool:
        """Whether the service failed and has not answered since."""
        return self._breaker.ailing

    def take_probe(self) -> bool:
        """Whether it is time to see how an ailing key does; true for one caller about every 5 s."""
        return self._breaker.take_probe()

    def identify(self, *, attempts: int | None = None, probing: bool = False, deadline: Any = None) -> str:
        """`key_id`, found with at most so many attempts; `probing` after `take_probe`."""
        if not self._key_id:
            key_id = self._call(
                "resolve",
                lambda timeout: self.driver.resolve(timeout=timeout),
                attempts,
                probing=probing,
            )
            checks.check_key_id(key_id, self.driver.scheme)
            self._key_id = key_id
        return self._key_id

    @property
    def last_answer(self) -> Answer:
        """Of this thread's latest call, whether it succeeded or failed; each call has an object of its own."""
        answer: Answer = getattr(self._last, "answer", _NONE)
        return answer

    def wrap(self, plaintext: bytes, context: EncryptionContext, *, deadline: Any = None) -> WrappedKey:
        """Wrap up to `max_plaintext` bytes, bound to `context`.

        Raises `LimitExceeded`, or a `KmsError`.
        """
        if len(plaintext) > self.max_plaintext:
            raise LimitExceeded(
                f"{len(plaintext)} bytes are more than {self} wraps at once",
                remedy=f"its limit is {self.max_plaintext} bytes; without direct mode there is none",
            )
        _ = self.key_id  # may be a call, whose answer must not be taken for this one's
        payload = plaintext if self.binds_context else plaintext + checks.context_hash(context)
        wrapped = self._call("wrap", lambda timeout: self.driver.wrap(payload, context, timeout=timeout))
        self._check_wrapped("wrap", wrapped)
        if len(payload) >= _BOUND and payload in wrapped.ciphertext:
            raise self._broken("wrap", "it returned the payload unencrypted")
        return wrapped

    def unwrap(
        self,
        wrapped: WrappedKey,
        context: EncryptionContext,
        *,
        attempts: int | None = None,
        probing: bool = False,
        deadline: Any = None,
    ) -> bytes:
        """What was wrapped, by at most so many attempts; `probing` after `take_probe`.

        Raises `AuthenticationError`, or a `KmsError`.
        """
        payload = self._call(
            "unwrap",
            lambda timeout: self.driver.unwrap(wrapped, context, timeout=timeout),
            attempts,
            probing=probing,
        )
        return self._unbind(payload, context)

    def unwrap_many(
        self, items: Sequence[tuple[WrappedKey, EncryptionContext]]
    ) -> list[bytes | KmsBridgeError]:
        """Unwrap many in one call of the driver; each result in its place, a failure as its error."""
        results: Any = self._call("unwrap", lambda timeout: self.driver.unwrap_many(items, timeout=timeout))
        if not isinstance(results, list) or len(results) != len(items):
            raise self._broken("unwrap", "it answered a batch with the wrong number of results")
        return [self._one_of_many(result, item[1]) for result, item in zip(results, items, strict=True)]

    def rewraps_from(self, key_id: str) -> bool:
        """Whether the service can rewrap, to this key, what the key of this id wrapped."""
        if Capability.SERVER_REWRAP not in self.capabilities or not self.binds_context:
            return False
        _ = self.key_id
        return self.driver.rewraps_from(key_id)

    def rewrap(self, wrapped: WrappedKey, context: EncryptionContext, *, deadline: Any = None) -> WrappedKey:
        """Have the service wrap anew, by this key, what `wrapped` holds; it is never seen here.

        Raises `AuthenticationError`, or a `KmsError`.
        """
        _ = self.key_id
        result = self._call("rewrap", lambda timeout: self.driver.rewrap(wrapped, context, timeout=timeout))
        self._check_wrapped("rewrap", result)
        return result

    def describe(self, *, deadline: Any = None) -> KeyDescription:
        """The key's state and current version."""
        description: Any = self._call("describe", lambda timeout: self.driver.describe(timeout=timeout))
        if not isinstance(description, KeyDescription) or not isinstance(description.state, KeyState):
            raise self._broken("describe", "it returned no KeyDescription")
        if description.key_id != self.key_id or checks.utf8_length(description.version) > MAX_KEY_VERSION:
            raise self._broken("describe", "it described another key, or a version that is none")
        return description

    def rotate(self) -> None:
        """Make a new version. Raises `KmsInvalidRequest` where the driver cannot."""
        if Capability.ROTATE not in self.capabilities:
            raise errors.KmsInvalidRequest(
                f"the {self.driver.scheme} driver does not rotate keys",
                remedy="rotate the key with the provider's own tools",
                key_id=self.key_id,
                operation="rotate",
            )
        self._call("rotate", lambda timeout: self.driver.rotate(timeout=timeout))

    def close(self) -> None:
        """Let go of the driver; may be repeated."""
        if not self._closed and self._driver is not None:
            self._driver.close()
        self._closed = True

    def __str__(self) -> str:
        return self._key_id or f"{self.driver.scheme} key {self.name!r}"

    def __repr__(self) -> str:
        return f"Key({self})"

    # --- one call ---------------------------------------------------------------------------------

    def _call(
        self,
        operation: str,
        attempt: Callable[[float], T],
        attempts: int | None = None,
        *,
        probing: bool = False,
    ) -> T:
        if self._closed:
            raise errors.ClosedError("the key is closed", remedy="open a new cipher")
        breaker = self._breaker_for(operation)
        if not probing and not breaker.allows():
            raise self._not_asked(operation)
        started = self._clock()
        deadline = started + self._policy.deadline
        most = min(attempts or self._policy.max_attempts, self._policy.max_attempts)
        self._budget.earn()
        for number in range(1, most + 1):
            take_request_id()
            try:
                left = min(self._policy.attempt_timeout, deadline - self._clock())
                result = attempt(max(left, _LEAST_TIMEOUT))
            except KmsBridgeError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever a provider's client library raises
                failure = error
            else:
                breaker.succeeded()
                self._last.answer = Answer(take_request_id(), number)
                return result
            # Outside the except block, so that the provider's exception is not chained as context.
            kind = self._classify(operation, failure)
            if kind in meaning.RETRIED:
                breaker.failed()
            else:
                breaker.succeeded()
            pause = random.uniform(0, min(_BACKOFF_MOST, _BACKOFF_FIRST * 2**number))  # noqa: S311 - jitter
            if kind not in meaning.RETRIED or not self._may_retry(most - number, deadline, pause):
                details = self._details(failure)
                self._last.answer = Answer(details.request_id, number)
                told = self._translate(operation, kind, details, number, self._clock() - started)
                cause = errors.ProviderFailure.of(failure)
                del failure
                raise told from cause
            del failure
            self._sleep(pause)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _may_retry(self, left: int, deadline: float, pause: float) -> bool:
        """Whether there is an attempt left, the time to make it, the budget, and hope."""
        in_time = self._clock() + pause < deadline
        return left > 0 and in_time and self._breaker.allows() and self._budget.spend()

    def _breaker_for(self, operation: str) -> Breaker:
        """What is done here says nothing of how the service does, and need not wait for it."""
        local = operation in ("wrap", "resolve") and Capability.LOCAL_WRAP in self.capabilities
        return Breaker(self._clock) if local else self._breaker

    def _not_asked(self, operation: str) -> KmsError:
        breaker = self._breaker
        return errors.KmsUnavailable(
            f"{operation} with {self}: not tried, because the key service has failed most calls "
            f"for {breaker.failing_for:.0f} s; it is asked again in {breaker.next_probe_in:.0f} s",
            remedy="check its address and health; the call may be repeated",
            key_id=self._key_id,
            operation=operation,
            provider_code="",
            attempts=0,
        )

    def _classify(self, operation: str, error: Exception) -> ErrorKind:
        try:
            kind = self.driver.classify(error)
        except Exception as second:  # noqa: BLE001 - a driver's own fault must not hide the first
            cause = errors.ProviderFailure.of(second)
        else:
            if isinstance(kind, ErrorKind):
                return kind
            cause = errors.ProviderFailure.of(error)
        del error  # else this frame would keep the provider's text alive
        raise self._broken(operation, "its classify() gave no ErrorKind") from cause

    def _details(self, error: BaseException) -> ErrorDetails:
        try:
            details: Any = self.driver.error_details(error)
        except Exception:  # noqa: BLE001 - as above
            details = None
        return details if isinstance(details, ErrorDetails) else ErrorDetails()

    def _translate(
        self, operation: str, kind: ErrorKind, details: ErrorDetails, attempts: int, elapsed: float
    ) -> KmsBridgeError:
        return meaning.error(
            kind,
            operation,
            key=str(self),
            key_id=self._key_id,
            details=details,
            attempts=attempts,
            elapsed=elapsed,
        )

    # --- what comes back --------------------------------------------------------------------------

    def _check_wrapped(self, operation: str, wrapped: Any) -> None:
        if not isinstance(wrapped, WrappedKey) or not isinstance(wrapped.ciphertext, bytes):
            raise self._broken(operation, "it returned no WrappedKey")
        if wrapped.key_id != self.key_id:
            raise self._broken(operation, "it answered with another key's id")
        fits = checks.utf8_length(wrapped.version) <= MAX_KEY_VERSION
        if not fits or not 1 <= len(wrapped.ciphertext) <= MAX_WRAPPED:
            raise self._broken(operation, "its answer does not fit into a message")

    def _unbind(self, payload: bytes, context: EncryptionContext) -> bytes:
        if not isinstance(payload, bytes):
            raise self._broken("unwrap", "it returned no bytes")
        if self.binds_context:
            return payload
        plaintext, bound = payload[:-_BOUND], payload[-_BOUND:]
        if not hmac.compare_digest(bound, checks.context_hash(context)):
            raise errors.AuthenticationError
        return plaintext

    def _one_of_many(self, result: bytes | ErrorKind, context: EncryptionContext) -> bytes | KmsBridgeError:
        if isinstance(result, ErrorKind):
            return self._translate("unwrap", result, ErrorDetails(), 1, 0.0)
        try:
            return self._unbind(result, context)
        except KmsBridgeError as error:
            return error

    def _broken(self, operation: str, what: str) -> KmsError:
        return KmsError(
            f"the {self.driver.scheme} driver is faulty: {what}",
            remedy="report it to the driver's author; kmsbridge.testing has the suite that shows it",
            key_id=self._key_id,
            operation=operation,
        )
