"""A configured key."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from kmsbridge import errors, forks
from kmsbridge.clock import Deadline
from kmsbridge.driver import Capability, EncryptionContext, KeyDescription, KeyDriver, WrappedKey
from kmsbridge.environment import NO_ENVIRONMENT, Environment
from kmsbridge.errors import AuthenticationError, KmsBridgeError, KmsError, KmsInvalidRequest
from kmsbridge.keys import binding, validation
from kmsbridge.keys.calls import VERIFY, KeyCalls, common_context
from kmsbridge.keys.health import ServiceHealth
from kmsbridge.keys.identity import KeyIdentity, version_of
from kmsbridge.keys.translation import cannot_rotate, too_long
from kmsbridge.observer import NOBODY, Call, Observer
from kmsbridge.policy import CallPolicy
from kmsbridge.secret import Secret

T = TypeVar("T")

_CLOSING: Final = 2.0
"""Seconds that closing waits for a driver whose call hangs."""


class ManagedKey:
    """A configured key: its driver, behind the rules that hold for every driver.

    Its parts have one job each: its identity, its calls (retries, breaker, limiter, translation of failures), the
    binding of the context, and the checks of what a driver returns.

    `name` is the key's name in the configuration; `observer` is told of every call; what is wrapped is bound to
    `environment`, beside the context. Threads may share a key, and signal handlers may use it at any time; a forked
    child gets a driver of its own at its first call, by `open_driver`.

    A method that may be a call takes a `deadline`, the end of the whole operation's time; without one it has the
    policy's for itself. An exception that neither the driver nor the library caused, such as a signal handler's,
    comes out at once and unchanged, and the call counts for nothing.
    """

    def __init__(
        self,
        name: str,
        open_driver: Callable[[], KeyDriver],
        policy: CallPolicy | None = None,
        *,
        environment: Environment = NO_ENVIRONMENT,
        observer: Observer = NOBODY,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.name, self.environment = name, environment
        self._open, self._clock = open_driver, clock
        self._policy = policy or CallPolicy()
        self._closed = False
        # Appended to and never locked: the first is used, others lost a race to be it.
        self._drivers = [open_driver()]
        self._identity = KeyIdentity(name, self._drivers[0].scheme)
        self._calls = KeyCalls(self._identity, self._policy, observer, clock=clock, sleep=sleep)
        forks.watch(self)

    @property
    def driver(self) -> KeyDriver:
        """The driver of this process."""
        if not self._drivers:
            self._drivers.append(self._open())
        return self._drivers[0]

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What the driver can do."""
        return self.driver.capabilities

    @property
    def binds_context(self) -> bool:
        """Whether the key service authenticates the context by itself."""
        return Capability.BINDS_CONTEXT in self.capabilities

    @property
    def reads_version(self) -> bool:
        """Whether `unwrap` goes by the version that a wrapped key is labelled with."""
        return self.driver.reads_version

    @property
    def max_plaintext(self) -> int:
        """The largest payload of one wrap, in bytes."""
        return self.driver.max_plaintext - (0 if self.binds_context else binding.BOUND)

    @property
    def batch_limit(self) -> int:
        """The most items of one `wrap_many` or `unwrap_many`."""
        return max(1, self.driver.batch_limit)

    @property
    def known_id(self) -> str:
        """The key's id; empty where it would cost a call."""
        return self._identity.key_id

    @property
    def unhealthy(self) -> bool:
        """Whether the service failed and has not answered since."""
        return self._calls.health.breaker.unhealthy

    @property
    def health(self) -> ServiceHealth:
        """What its calls have told of its service."""
        return self._calls.health

    def take_probe(self) -> bool:
        """Return whether it is time to see how an unhealthy key does; true for one caller about every 5 s."""
        return self._calls.health.breaker.take_probe()

    def new_deadline(self) -> Deadline:
        """Return the end of the time that the policy gives an operation which begins now."""
        return Deadline(self._policy.deadline, self._clock)

    @property
    def key_id(self) -> str:
        """The key's canonical id; the first use may cost a call."""
        return self.identify()

    def identify(
        self, *, attempts: int | None = None, probing: bool = False, deadline: Deadline | None = None
    ) -> str:
        """Return `key_id`, found with at most so many attempts; `probing` after `take_probe`."""
        if not self._identity.key_id:
            self._identity.key_id = self._calls.call(
                self.driver,
                Call("resolve", str(self)),
                (),
                self._identity.check,
                deadline or self.new_deadline(),
                attempts=attempts,
                probing=probing,
            )
        return self._identity.key_id

    def wrap(
        self,
        plaintext: bytes,
        context: EncryptionContext,
        *,
        purpose: str = "",
        deadline: Deadline | None = None,
    ) -> WrappedKey:
        """Wrap up to `max_plaintext` bytes, bound to `context`; `purpose` is for observers.

        Raise `LimitExceeded`, or a `KmsError`.
        """
        context = self.environment.mark(context)
        payload = self._bind(plaintext, context)
        _overwritten = Secret(payload)  # it is a copy where the library binds the context
        deadline = deadline or self.new_deadline()
        if not self.driver.wrap_tells_id:
            self.identify(deadline=deadline)
        return self._calls.call(
            self.driver,
            Call("wrap", str(self), context, purpose=purpose),
            (payload, context),
            partial(self._check_wrapped, payload=payload),
            deadline,
        )

    def wrap_many(
        self,
        items: Sequence[tuple[bytes, EncryptionContext]],
        *,
        purpose: str = "",
        deadline: Deadline | None = None,
    ) -> list[WrappedKey | KmsBridgeError]:
        """Wrap 1 to `batch_limit` payloads in one call of the driver. Return each result in its place, or its error.

        Needs `BATCH_WRAP`. Raise `LimitExceeded` where one is too large, and a `KmsError` where all of it failed.
        """
        items = [(plaintext, self.environment.mark(context)) for plaintext, context in items]
        payloads = [(self._bind(plaintext, context), context) for plaintext, context in items]
        deadline = deadline or self.new_deadline()
        key_id, count = self.identify(deadline=deadline), len(items)
        return self._calls.call_batch(
            self.driver,
            Call("wrap", key_id, common_context(items), purpose=purpose, batch=count),
            payloads,
            lambda number, answer: validation.check_wrapped_key(answer, key_id, payloads[number][0]),
            deadline,
        )

    def unwrap(
        self,
        wrapped: WrappedKey,
        context: EncryptionContext,
        *,
        attempts: int | None = None,
        probing: bool = False,
        deadline: Deadline | None = None,
    ) -> bytes:
        """Return what was wrapped, by at most so many attempts; `probing` after `take_probe`.

        Where it was wrapped without an environment and that is accepted still, it takes two calls. Raise
        `AuthenticationError`, or a `KmsError`.
        """
        deadline = deadline or self.new_deadline()
        try:
            return self._unwrap(wrapped, self.environment.mark(context), deadline, attempts, probing=probing)
        except AuthenticationError:
            if not self.environment.accepts_unmarked():
                raise
        payload = self._unwrap(wrapped, context, deadline, attempts)
        if not self.environment.accepts_unmarked():
            raise AuthenticationError  # the date came meanwhile
        return payload

    def unwrap_many(
        self, items: Sequence[tuple[WrappedKey, EncryptionContext]], *, deadline: Deadline | None = None
    ) -> list[bytes | KmsBridgeError]:
        """Unwrap 1 to `batch_limit` wrapped keys in one call. Return each result or its error; raise where all failed."""
        deadline = deadline or self.new_deadline()
        marked = [(wrapped, self.environment.mark(context)) for wrapped, context in items]
        results = self._unwrap_batch(marked, deadline)
        refused = [n for n, result in enumerate(results) if isinstance(result, AuthenticationError)]
        if not refused or not self.environment.accepts_unmarked():
            return results
        try:
            again = self._unwrap_batch([items[n] for n in refused], deadline)
        except KmsInvalidRequest:
            raise  # the batch itself may be what was wrong
        except KmsError as error:
            again = [error] * len(refused)
        for n, result in zip(refused, again, strict=True):
            results[n] = result
        return results

    def rewraps_from(self, key_id: str, *, deadline: Deadline | None = None) -> bool:
        """Return whether the service can rewrap, to this key, what the key of this id wrapped."""
        if Capability.SERVER_REWRAP not in self.capabilities or not self.binds_context:
            return False
        return key_id == self.identify(deadline=deadline) or self.driver.rewraps_from(key_id)

    def rewrap(
        self, wrapped: WrappedKey, context: EncryptionContext, *, deadline: Deadline | None = None
    ) -> WrappedKey:
        """Have the service wrap anew, by this key, what `wrapped` holds; it is never seen here.

        What was wrapped without an environment takes two calls where that is accepted still and the service can bind
        it to one. Raise `AuthenticationError`, or a `KmsError`.
        """
        deadline = deadline or self.new_deadline()
        marked = self.environment.mark(context)
        try:
            return self._rewrap(wrapped, (marked,), deadline)
        except AuthenticationError:
            if not (self.environment.accepts_unmarked() and self.driver.rewraps_context):
                raise
        return self._rewrap(wrapped, (context, marked), deadline)

    def is_current(
        self, wrapped: WrappedKey, context: EncryptionContext, *, deadline: Deadline
    ) -> bool | None:
        """Return whether the key's current version wrapped it, as the service tells; None where it does not.

        Without `CHECKS_VERSION` it is unwrapped. Raise `AuthenticationError`, or a `KmsError`.
        """
        if Capability.CHECKS_VERSION not in self.capabilities:
            self.unwrap(wrapped, context, deadline=deadline)
            return None
        marked = self.environment.mark(context)
        return self._calls.call(
            self.driver,
            Call("rewrap", self.identify(deadline=deadline), marked, purpose=VERIFY),
            (wrapped, marked),
            validation.check_answer_of_is_current,
            deadline,
        )

    def describe(self, *, deadline: Deadline | None = None) -> KeyDescription:
        """Return the key's state and current version. Raise a `KmsError`."""
        deadline = deadline or self.new_deadline()
        key_id = self.identify(deadline=deadline)
        return self._calls.call(
            self.driver,
            Call("describe", key_id),
            (),
            lambda answer: validation.check_description(answer, key_id),
            deadline,
        )

    def rotate(self, *, deadline: Deadline | None = None) -> str:
        """Make a new version, by one attempt. Return which it is; empty where that cannot be told.

        Raise `KmsInvalidRequest` where the driver cannot rotate, or a `KmsError`.
        """
        deadline = deadline or self.new_deadline()
        self.identify(deadline=deadline)
        if Capability.ROTATE not in self.capabilities:
            raise cannot_rotate(self._identity)
        # Never again: an attempt of which nobody knows what became of it may have made a version.
        told = self._calls.call(
            self.driver,
            Call("rotate", str(self)),
            (),
            lambda _: self._describe_new_version(deadline),
            deadline,
            attempts=1,
        )
        return "" if told is None else told.version

    def close(self) -> None:
        """Let go of the driver; may be repeated. A call that hangs is waited for 2 s at most."""
        if self._closed:
            return
        self._closed = True
        for driver in list(self._drivers):
            self._calls.close(driver, _CLOSING)

    def after_fork(self) -> None:
        """A child opens a driver of its own, when it first needs one."""
        self._calls.forget_health()
        # Kept, because ending it could say goodbye on the connections that the parent goes on using.
        self._parents_drivers, self._drivers = self._drivers, []

    def __str__(self) -> str:
        return str(self._identity)

    def __repr__(self) -> str:
        return f"ManagedKey({self})"

    def _check_wrapped(self, answer: Any, payload: bytes) -> WrappedKey:
        if not self._identity.key_id and isinstance(answer, WrappedKey):
            self._identity.key_id = self._identity.check(answer.key_id)
        return validation.check_wrapped_key(answer, self._identity.key_id, payload)

    def _describe_new_version(self, deadline: Deadline) -> KeyDescription | None:
        # The key is rotated by now: that its version cannot be told must not read as if it were not.
        if Capability.REPORTS_VERSION not in self.capabilities:
            return None
        try:
            return self.describe(deadline=deadline)
        except errors.KmsError:
            return None

    def _unwrap(
        self,
        wrapped: WrappedKey,
        context: EncryptionContext,
        deadline: Deadline,
        attempts: int | None,
        *,
        probing: bool = False,
    ) -> bytes:
        return self._calls.call(
            self.driver,
            Call("unwrap", str(self), context, version_of(self.driver, wrapped)),
            (wrapped, context),
            lambda answer: self._unbind(answer, context),
            deadline,
            attempts=attempts,
            probing=probing,
        )

    def _rewrap(
        self, wrapped: WrappedKey, contexts: tuple[EncryptionContext, ...], deadline: Deadline
    ) -> WrappedKey:
        """Rewrap what is bound to the first of `contexts`, to the last of them."""
        key_id = self.identify(deadline=deadline)
        return self._calls.call(
            self.driver,
            Call("rewrap", key_id, contexts[0], version_of(self.driver, wrapped)),
            (wrapped, *contexts),
            lambda answer: validation.check_wrapped_key(answer, key_id),
            deadline,
        )

    def _unwrap_batch(
        self, items: Sequence[tuple[WrappedKey, EncryptionContext]], deadline: Deadline
    ) -> list[bytes | KmsBridgeError]:
        return self._calls.call_batch(
            self.driver,
            Call("unwrap", str(self), common_context(items), batch=len(items)),
            items,
            lambda number, answer: self._unbind(answer, items[number][1]),
            deadline,
        )

    def _bind(self, plaintext: bytes, context: EncryptionContext) -> bytes:
        if len(plaintext) > self.max_plaintext:
            raise too_long(len(plaintext), self.max_plaintext, self._identity)
        return plaintext if self.binds_context else binding.bind(plaintext, context)

    def _unbind(self, answer: Any, context: EncryptionContext) -> bytes:
        payload = validation.check_plaintext(answer)
        return payload if self.binds_context else binding.unbind(payload, context)
