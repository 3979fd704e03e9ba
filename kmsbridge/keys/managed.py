"""A configured key, and how it is called."""

from __future__ import annotations

import hmac
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from kmsbridge import errors, forks
from kmsbridge.clock import Deadline
from kmsbridge.driver import (
    Capability,
    EncryptionContext,
    ErrorDetails,
    ErrorKind,
    KeyDescription,
    KeyDriver,
    KeyState,
    Operation,
    WrappedKey,
)
from kmsbridge.errors import KmsBridgeError, KmsError
from kmsbridge.keys import checks, translation
from kmsbridge.keys.attempt import Attempts, Done, Failed, Raised, Work
from kmsbridge.keys.health import Health
from kmsbridge.keys.tries import Tries
from kmsbridge.message import MAX_KEY_VERSION
from kmsbridge.policy import CallPolicy

_CLOSING: Final = 2.0
"""Seconds that closing waits for a driver whose call hangs."""
_NOT_SENT: Final = Failed(ErrorKind.THROTTLED, ErrorDetails(), None)


class Answer(NamedTuple):
    """What the audit trail wants to know of a call that the service answered."""

    request_id: str
    attempts: int


_NONE: Final = Answer("", 0)


class ManagedKey:
    """One configured key: its driver, behind the rules that hold for every driver.

    `name` is the key's name in the configuration. Threads may share a ManagedKey, and signal handlers may use it at
    any time; a forked child gets a driver of its own at its first call.

    A method that may be a call takes a `deadline`, the end of the whole operation's time; without one it has
    the policy's for itself. An exception that neither the driver nor the library caused, such as a signal
    handler's, comes out at once and unchanged, and the call counts for nothing.
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
        self._health = Health(clock)
        self._attempts = Attempts(clock)
        # Appended to and never locked: the first is used, others lost a race to be it.
        self._drivers = [open_driver()]
        forks.watch(self)

    @property
    def driver(self) -> KeyDriver:
        """The driver of this process."""
        if not self._drivers:
            self._drivers.append(self._open())
        return self._drivers[0]

    def after_fork(self) -> None:
        """A child opens a driver of its own, when it first needs one."""
        self._health = Health(self._clock)
        # Kept, because ending it could say goodbye on the connections that the parent goes on using.
        self._parents_drivers, self._drivers = self._drivers, []

    def new_deadline(self) -> Deadline:
        """The end of the time that the policy gives an operation which begins now."""
        return Deadline(self._policy.deadline, self._clock)

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What the driver can do."""
        return self.driver.capabilities

    @property
    def binds_context(self) -> bool:
        """Whether the provider authenticates the context by itself."""
        return Capability.BINDS_CONTEXT in self.capabilities

    @property
    def reads_version(self) -> bool:
        """Whether `unwrap` goes by the version that a wrapped key is labelled with."""
        return self.driver.reads_version

    @property
    def max_plaintext(self) -> int:
        """The largest payload of one wrap, in bytes."""
        return self.driver.max_plaintext - (0 if self.binds_context else checks.HASH_LENGTH)

    @property
    def batch_limit(self) -> int:
        """The most items of one `wrap_many` or `unwrap_many`."""
        return max(1, self.driver.batch_limit)

    @property
    def key_id(self) -> str:
        """The canonical id; the first use may cost a call."""
        return self.identify()

    @property
    def known_id(self) -> str:
        """The canonical id; empty where it would cost a call."""
        return self._key_id

    @property
    def unhealthy(self) -> bool:
        """Whether the service failed and has not answered since."""
        return self._health.breaker.unhealthy

    def take_probe(self) -> bool:
        """Whether it is time to see how an unhealthy key does; true for one caller about every 5 s."""
        return self._health.breaker.take_probe()

    def identify(
        self, *, attempts: int | None = None, probing: bool = False, deadline: Deadline | None = None
    ) -> str:
        """`key_id`, found with at most so many attempts; `probing` after `take_probe`."""
        if not self._key_id:
            key_id = self._call(
                "resolve",
                lambda driver, timeout: driver.resolve(timeout=timeout),
                deadline=deadline,
                attempts=attempts,
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

    def wrap(
        self, plaintext: bytes, context: EncryptionContext, *, deadline: Deadline | None = None
    ) -> WrappedKey:
        """Wrap up to `max_plaintext` bytes, bound to `context`.

        Raises `LimitExceeded`, or a `KmsError`.
        """
        payload = self._payload(plaintext, context)
        deadline = deadline or self.new_deadline()
        self.identify(deadline=deadline)  # may be a call, whose answer must not be taken for this one's
        wrapped = self._call(
            "wrap", lambda driver, timeout: driver.wrap(payload, context, timeout=timeout), deadline=deadline
        )
        return self._checked("wrap", wrapped, payload)

    def wrap_many(
        self, items: Sequence[tuple[bytes, EncryptionContext]], *, deadline: Deadline | None = None
    ) -> list[WrappedKey | KmsBridgeError]:
        """Wrap 1 to `batch_limit` payloads in one call; each result in its place, a failure as its error.

        Needs `BATCH_WRAP`. Raises what `wrap` does where it is so of all, and `LimitExceeded` if one is too large.
        """
        payloads = [(self._payload(plaintext, context), context) for plaintext, context in items]
        deadline = deadline or self.new_deadline()
        self.identify(deadline=deadline)
        results, elapsed = self._batch(
            "wrap", lambda driver, timeout: driver.wrap_many(payloads, timeout=timeout), len(items), deadline
        )
        return [
            self._told("wrap", Failed(result, ErrorDetails(), None), 1, elapsed)
            if isinstance(result, ErrorKind)
            else self._checked("wrap", result, payload)
            for result, (payload, _) in zip(results, payloads, strict=True)
        ]

    def unwrap(
        self,
        wrapped: WrappedKey,
        context: EncryptionContext,
        *,
        attempts: int | None = None,
        probing: bool = False,
        deadline: Deadline | None = None,
    ) -> bytes:
        """What was wrapped, by at most so many attempts; `probing` after `take_probe`.

        Raises `AuthenticationError`, or a `KmsError`.
        """
        payload = self._call(
            "unwrap",
            lambda driver, timeout: driver.unwrap(wrapped, context, timeout=timeout),
            deadline=deadline,
            attempts=attempts,
            probing=probing,
        )
        return self._unbind(payload, context)

    def unwrap_many(
        self, items: Sequence[tuple[WrappedKey, EncryptionContext]], *, deadline: Deadline | None = None
    ) -> list[bytes | KmsBridgeError]:
        """Unwrap 1 to `batch_limit` in one call; each result in its place, a failure as its error."""
        results, elapsed = self._batch(
            "unwrap", lambda driver, timeout: driver.unwrap_many(items, timeout=timeout), len(items), deadline
        )
        return [
            self._one_of_many(result, context, elapsed)
            for result, (_, context) in zip(results, items, strict=True)
        ]

    def rewraps_from(self, key_id: str, *, deadline: Deadline | None = None) -> bool:
        """Whether the service can rewrap, to this key, what the key of this id wrapped."""
        if Capability.SERVER_REWRAP not in self.capabilities or not self.binds_context:
            return False
        return key_id == self.identify(deadline=deadline) or self.driver.rewraps_from(key_id)

    def rewrap(
        self, wrapped: WrappedKey, context: EncryptionContext, *, deadline: Deadline | None = None
    ) -> WrappedKey:
        """Have the service wrap anew, by this key, what `wrapped` holds; it is never seen here.

        Raises `AuthenticationError`, or a `KmsError`.
        """
        deadline = deadline or self.new_deadline()
        self.identify(deadline=deadline)
        result = self._call(
            "rewrap",
            lambda driver, timeout: driver.rewrap(wrapped, context, timeout=timeout),
            deadline=deadline,
        )
        return self._checked("rewrap", result)

    def describe(self, *, deadline: Deadline | None = None) -> KeyDescription:
        """The key's state and current version."""
        deadline = deadline or self.new_deadline()
        description = self._call(
            "describe", lambda driver, timeout: driver.describe(timeout=timeout), deadline=deadline
        )
        if not isinstance(description, KeyDescription) or not isinstance(description.state, KeyState):
            raise self._broken("describe", "it returned no KeyDescription")
        key_id = self.identify(deadline=deadline)
        if description.key_id != key_id or checks.utf8_length(description.version) > MAX_KEY_VERSION:
            raise self._broken("describe", "it described another key, or a version that is none")
        return description

    def rotate(self, *, deadline: Deadline | None = None) -> None:
        """Make a new version, by one attempt. Raises `KmsInvalidRequest` where the driver cannot."""
        if Capability.ROTATE not in self.capabilities:
            raise translation.cannot_rotate(self.driver.scheme, key_id=self.key_id)
        # Never again: an attempt of which nobody knows what became of it may have made a version.
        self._call(
            "rotate", lambda driver, timeout: driver.rotate(timeout=timeout), deadline=deadline, attempts=1
        )

    def close(self) -> None:
        """Let go of the driver; may be repeated. A call that hangs is waited for 2 s at most."""
        if self._closed:
            return
        self._closed = True
        for driver in list(self._drivers):
            self._attempts.close(driver, _CLOSING)

    def __str__(self) -> str:
        return self._key_id or f"{self.driver.scheme} key {self.name!r}"

    def __repr__(self) -> str:
        return f"Key({self})"

    # --- one call ---------------------------------------------------------------------------------

    def _call(
        self,
        operation: Operation,
        work: Work,
        *,
        deadline: Deadline | None = None,
        attempts: int | None = None,
        probing: bool = False,
    ) -> Any:
        deadline = deadline or self.new_deadline()
        health = self._health_for(operation)
        self._check_may_ask(operation, health, deadline, probing=probing)
        started = self._clock()
        most = min(attempts or self._policy.max_attempts, self._policy.max_attempts)
        tries = Tries(health, deadline, most)
        failure = _NOT_SENT
        while tries.wait_for_turn(self._sleep):
            if self._closed:  # by another thread, meanwhile
                raise translation.closed()
            seconds = min(self._policy.attempt_timeout, deadline.left())
            attempt = self._attempts.make(self.driver, operation, work, seconds)
            if isinstance(attempt, Raised):
                raise attempt.error
            if isinstance(attempt, Done):
                tries.answered(None)
                self._last.answer = Answer(attempt.request_id, tries.made)
                return attempt.result
            failure = attempt
            if failure.kind is None:
                raise self._broken(operation, "its classify() gave no ErrorKind") from failure.cause
            tries.answered(failure.kind)
            pause = tries.pause_after(failure.kind)
            if pause is None:
                break
            self._sleep(pause)
        self._last.answer = Answer(failure.details.request_id, tries.made)
        raise self._told(operation, failure, tries.made, self._clock() - started) from failure.cause

    def _batch(
        self, operation: Operation, work: Work, length: int, deadline: Deadline | None
    ) -> tuple[list[Any], float]:
        """The driver's results, and the seconds that they took."""
        started = self._clock()
        results = self._call(operation, work, deadline=deadline)
        if not isinstance(results, list) or len(results) != length:
            raise self._broken(operation, "it answered a batch with the wrong number of results")
        return results, self._clock() - started

    def _check_may_ask(self, operation: str, health: Health, deadline: Deadline, *, probing: bool) -> None:
        if self._closed:
            raise translation.closed()
        if not deadline.left():
            raise translation.too_late(operation, key=str(self), key_id=self._key_id)
        breaker = health.breaker
        if not probing and not breaker.allows():
            raise translation.not_asked(
                operation,
                key=str(self),
                key_id=self._key_id,
                failing_for=breaker.failing_for,
                next_probe_in=breaker.next_probe_in,
            )

    def _health_for(self, operation: str) -> Health:
        """What is done here says nothing of how the service does, and need not wait for it."""
        local = operation in ("wrap", "resolve") and Capability.LOCAL_WRAP in self.capabilities
        return Health(self._clock) if local else self._health

    def _told(self, operation: str, failure: Failed, attempts: int, elapsed: float) -> KmsBridgeError:
        return translation.error(
            failure, operation, key=str(self), key_id=self._key_id, attempts=attempts, elapsed=elapsed
        )

    # --- what goes out and comes back -------------------------------------------------------------

    def _payload(self, plaintext: bytes, context: EncryptionContext) -> bytes:
        if len(plaintext) > self.max_plaintext:
            raise translation.too_large(len(plaintext), key=str(self), limit=self.max_plaintext)
        return plaintext if self.binds_context else plaintext + checks.context_hash(context)

    def _checked(self, operation: str, wrapped: Any, payload: bytes = b"") -> WrappedKey:
        if fault := checks.fault_in_wrapped(wrapped, self.key_id, payload):
            raise self._broken(operation, fault)
        return wrapped  # type: ignore[no-any-return]

    def _unbind(self, payload: bytes, context: EncryptionContext) -> bytes:
        if not isinstance(payload, bytes):
            raise self._broken("unwrap", "it returned no bytes")
        if self.binds_context:
            return payload
        plaintext, bound = payload[: -checks.HASH_LENGTH], payload[-checks.HASH_LENGTH :]
        if not hmac.compare_digest(bound, checks.context_hash(context)):
            raise errors.AuthenticationError
        return plaintext

    def _one_of_many(
        self, result: bytes | ErrorKind, context: EncryptionContext, elapsed: float
    ) -> bytes | KmsBridgeError:
        if isinstance(result, ErrorKind):
            return self._told("unwrap", Failed(result, ErrorDetails(), None), 1, elapsed)
        try:
            return self._unbind(result, context)
        except KmsBridgeError as error:
            return error

    def _broken(self, operation: str, what: str) -> KmsError:
        return translation.faulty(self.driver.scheme, what, key_id=self._key_id, operation=operation)
