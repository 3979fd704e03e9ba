"""Tries the operations of one key, for `doctor` and for `check`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal, TypeVar, get_args

from kmsbridge.clock import Deadline
from kmsbridge.context import EncryptionContext
from kmsbridge.driver import Capability, KeyDescription, PolicyRole, WrappedKey
from kmsbridge.environment import PAIR
from kmsbridge.errors import (
    AuditError,
    AuthenticationError,
    ClosedError,
    KmsAccessDenied,
    KmsBridgeError,
    KmsError,
    KmsInvalidRequest,
    KmsKeyNotFound,
    KmsTimeout,
    KmsUnauthenticated,
    KmsUnavailable,
)
from kmsbridge.keys.managed import ManagedKey
from kmsbridge.message import Recipient
from kmsbridge.observer import Call, CallResult, Observer

T = TypeVar("T")

PROBE: Final = "probe"
"""The value of the reserved pair `kmsbridge` that a probe is bound to."""
LENGTH: Final = 32
_REFUSED: Final = (KmsAccessDenied, KmsUnauthenticated)
_SILENT: Final = (KmsUnavailable, KmsTimeout)


Measured = Literal["", "service", "probe", "local", "message", "forged", "combined"]
"""How an operation was tried: by a call that needs no wrapped key, with a probe, with a probe that this host
wrapped by itself, with a message, with a wrapped key that is not authentic, or as unwrap and wrap together. Empty
for an operation that was not tried."""

_UNUSABLE: Final = ("disabled", "pending deletion")
"""States of a key in which a service may accept a request that would not succeed."""


@dataclass(frozen=True, slots=True)
class Trial:
    """The result of trying one operation.

    `may` says whether this host may do it, None where that is unknown. `proven` is false where the service only
    accepted the request, without showing that it would succeed. `milliseconds` includes retries, and is None where
    no call was made. `error` is the name of the error's class; `problem` and `remedy` are its text.
    """

    may: bool | None = None
    proven: bool = False
    measured: Measured = ""
    milliseconds: float | None = None
    request_id: str = ""
    error: str = ""
    problem: str = ""
    remedy: str = ""


def shortfall(operation: str, trial: Trial, state: str) -> str:
    """Return why an operation that is needed does not work, and what to do; empty where it works.

    `state` is that of the key, as its service describes it.
    """
    if not trial.may:
        text = f"{trial.problem}; {trial.remedy}" if trial.remedy else trial.problem
        # Where nothing was tried, the reason is the same for every operation.
        return f"{operation}: {text}" if trial.measured else text
    if not trial.proven and state in _UNUSABLE:
        return f"{operation}: the key is {state}; enable it or cancel its deletion"
    return ""


@dataclass(frozen=True, slots=True)
class Message:
    """The recipients of a message by key id, and the context that their wrapped keys are bound to."""

    recipients: Mapping[str, Recipient]
    bound: EncryptionContext


@dataclass(frozen=True, slots=True)
class Sample:
    """A wrapped key to try unwrapping with. `payload` is the expected result, None where it is unknown."""

    measured: Measured
    wrapped: WrappedKey
    bound: EncryptionContext
    payload: bytes | None = field(default=None, repr=False)


class LastCall(Observer):
    """Keeps the provider's request id of the last call, and the context that the service was given."""

    def __init__(self) -> None:
        self.request_id = ""
        self.context: Mapping[str, str] = {}

    def call_finished(self, call: Call, result: CallResult) -> None:
        """Keep the call's request id and context."""
        self.request_id, self.context = result.request_id, call.context


class KeyTrials:
    """The trials of one key. Each method tries one operation.

    Beside the trial, methods return the call's result, which is None where the call failed or was not made. After
    the service did not answer once, nothing more is tried. Every method may raise `AuditError`. Each call has the
    time that the policy gives it, or together they have `deadline`.
    """

    def __init__(
        self,
        key: ManagedKey,
        last_call: LastCall,
        pairs: EncryptionContext,
        message: Message | None = None,
        deadline: Deadline | None = None,
    ) -> None:
        self.key_id = ""
        self.reachable: bool | None = None
        self.message_marked: bool | None = None
        self._key, self._last_call, self._message = key, last_call, message
        self._deadline = deadline
        self._bound = pairs.with_reserved(kmsbridge=PROBE)
        self._exists = False
        self._stopped: Trial | None = None

    def describe(self) -> tuple[Trial, KeyDescription | None]:
        """Look up the key's id and describe its state."""
        trial, key_id = self._try("resolve", "service", lambda: self._key.identify(deadline=self._deadline))
        if key_id is None:
            self._stop("resolve", trial)
            return trial, None
        self.key_id = key_id
        trial, description = self._try(
            "describe", "service", lambda: self._key.describe(deadline=self._deadline)
        )
        self._exists = description is not None
        return trial, description

    def wrap(self) -> tuple[Trial, Sample | None]:
        """Wrap a probe; return it as a sample to unwrap."""
        local = Capability.LOCAL_WRAP in self._key.capabilities and bool(self.key_id)
        measured: Measured = "local" if local else "probe"
        payload = os.urandom(LENGTH)
        trial, wrapped = self._try(
            "wrap", measured, lambda: self._key.wrap(payload, self._bound, deadline=self._deadline)
        )
        if wrapped is None:
            return trial, None
        return trial, Sample("probe", wrapped, self._bound, payload)

    def sample(self, version: str) -> Sample:
        """Return a sample for a host that may not wrap: the message's wrapped key, or one that is not authentic."""
        recipient = self._recipient()
        if self._message is not None and recipient is not None:
            wrapped = WrappedKey(self.key_id, recipient.key_version, recipient.wrapped)
            return Sample("message", wrapped, self._message.bound)
        noise = WrappedKey(self.key_id, version, os.urandom(LENGTH + 28))
        forged = next(iter(self._key.driver.forgeries()), noise)
        return Sample("forged", forged, self._bound)

    def unwrap(self, sample: Sample) -> tuple[Trial, bytes | None]:
        """Unwrap the sample."""
        return self._try("unwrap", sample.measured, lambda: self._unwrap(sample))

    def rewrap(self, sample: Sample, payload: bytes | None, wrap: Trial, unwrap: Trial) -> Trial:
        """Rewrap the sample within the service. Where that is not possible, combine the results of `wrap` and `unwrap`.

        `payload` is the sample's content as unwrapped before, None where it is unknown.
        """
        if self._stopped is not None:
            return self._stopped
        if not self._key.rewraps_from(self.key_id, deadline=self._deadline):
            return _combined(wrap, unwrap)
        trial, new = self._try(
            "rewrap",
            sample.measured,
            lambda: self._key.rewrap(sample.wrapped, sample.bound, deadline=self._deadline),
        )
        if new is None or payload is None:
            return trial
        check, _ = self.unwrap(Sample("probe", new, sample.bound, payload))
        return trial if check.may else replace(check, milliseconds=trial.milliseconds)

    def look_at_message(self) -> bool | None:
        """Return whether the message was made in the profile's environment, or without one.

        None where that is not known: the message was not unwrapped, or the profile has no environment.
        """
        if self.message_marked is None and self._key.environment.name and not self._stopped:
            sample = self.sample("")
            if sample.measured == "message":
                self.unwrap(sample)
        return self.message_marked

    def printable_policies(self) -> frozenset[PolicyRole]:
        """Return the roles for which the driver can print a policy; no call is made."""
        roles: tuple[PolicyRole, ...] = get_args(PolicyRole)
        return frozenset(role for role in roles if self._prints(role))

    def _prints(self, role: PolicyRole) -> bool:
        try:
            return bool(self._key.driver.policy(role))
        except (NotImplementedError, KmsBridgeError):
            return False

    def _recipient(self) -> Recipient | None:
        recipients = self._message.recipients if self._message is not None else {}
        former = (each for each in recipients.values() if self._key.driver.has_former_id(each.key_id))
        return recipients.get(self.key_id) or next(former, None)

    def _unwrap(self, sample: Sample) -> bytes:
        try:
            payload = self._key.unwrap(sample.wrapped, sample.bound, deadline=self._deadline)
        except AuthenticationError:
            if sample.measured != "probe":
                raise
            payload = b""
        if sample.measured == "forged":
            raise KmsError(
                "a wrapped key that is not authentic was unwrapped without an error",
                remedy="do not use this driver, and report it to its author",
                operation="unwrap",
            )
        if sample.measured == "message" and self._key.environment.name:
            self.message_marked = PAIR in self._last_call.context
        if sample.payload is not None and payload != sample.payload:
            raise KmsError(
                "unwrapping returned another value than was wrapped",
                remedy="check that wrapping and unwrapping use the same key: its address, its public key; "
                "if they do, report it to the driver's author",
                operation="unwrap",
            )
        return payload

    def _try(self, operation: str, measured: Measured, call: Callable[[], T]) -> tuple[Trial, T | None]:
        if self._stopped is not None and measured != "local":
            return self._stopped, None
        trial, started = Trial(measured=measured), time.perf_counter()
        try:
            try:
                result = call()
            finally:
                trial = replace(trial, milliseconds=round((time.perf_counter() - started) * 1000, 3))
        except (AuditError, ClosedError):
            raise
        except KmsBridgeError as error:
            return self._failed(operation, trial, error), None
        if operation != "resolve" and measured != "local":  # these two may need no service
            self.reachable = True
        return replace(trial, may=True, proven=True, request_id=self._last_call.request_id), result

    def _failed(self, operation: str, trial: Trial, error: KmsBridgeError) -> Trial:
        if isinstance(error, KmsError) and not isinstance(error, _SILENT):
            self.reachable = True
        # A message's own wrapped key is a valid request, so there the refusal is about something else.
        invalid = isinstance(error, KmsInvalidRequest) and trial.measured == "forged"
        permitted = (
            invalid
            or isinstance(error, AuthenticationError)
            or (self._exists and isinstance(error, KmsKeyNotFound))
        )
        # An AuthenticationError has no request id, and comes only after a call.
        source = error if isinstance(error, KmsError) else self._last_call
        request_id = source.request_id if isinstance(error, (KmsError, AuthenticationError)) else ""
        trial = replace(trial, request_id=request_id, error=type(error).__name__)
        if permitted and trial.measured in ("message", "forged"):
            return _unproven(trial)
        trial = replace(
            trial,
            may=False if isinstance(error, _REFUSED) else None,
            proven=isinstance(error, _REFUSED),
            problem=error.message.removeprefix(f"{operation} with {self._key}: "),
            remedy=error.remedy,
        )
        if isinstance(error, _SILENT):
            self.reachable = self.reachable or False
            self._stop(operation, trial)
        return trial

    def _stop(self, operation: str, trial: Trial) -> None:
        problem = f"{operation}: {trial.problem}"
        self._stopped = Trial(error=trial.error, problem=problem, remedy=trial.remedy)


def _unproven(trial: Trial) -> Trial:
    if trial.measured == "message":
        problem = "permitted, not proven: the service did not unwrap the message's wrapped key"
        remedy = "give the message's context and aad"
    else:
        problem = "permitted, not proven: tried with a wrapped key that is not authentic"
        remedy = "give --message"
    return replace(trial, may=True, problem=problem, remedy=remedy)


def _combined(wrap: Trial, unwrap: Trial) -> Trial:
    """Return the result of a rewrap that consists of an unwrap and a wrap."""
    parts = (unwrap, wrap)
    worst = next((part for part in parts if part.may is False), None) or next(
        (part for part in parts if part.may is None), unwrap
    )
    times = [part.milliseconds for part in parts if part.milliseconds is not None]
    return replace(
        worst,
        measured="combined",
        milliseconds=round(sum(times), 3) if worst.may else None,
        request_id="",
    )
