"""One key's trials, from the first call to the last."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

from kmsbridge.context import EncryptionContext
from kmsbridge.doctor.report import Measured, Trial
from kmsbridge.driver import Capability, KeyDescription, WrappedKey
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
from kmsbridge.keys import ManagedKey
from kmsbridge.message import Recipient
from kmsbridge.observer import Call, CallResult, Observer

T = TypeVar("T")

PROBE: Final = "probe"
"""The value of the reserved pair `kmsbridge` that a probe is bound to."""
LENGTH: Final = 32
_REFUSED: Final = (KmsAccessDenied, KmsUnauthenticated)
_SILENT: Final = (KmsUnavailable, KmsTimeout)
# What a service says of a wrapped key that is none, once it has let the caller ask.
_LET_ASK: Final = (AuthenticationError, KmsInvalidRequest)


@dataclass(frozen=True, slots=True)
class Message:
    """The recipients of a message by key id, and what they are bound to."""

    recipients: Mapping[str, Recipient]
    bound: EncryptionContext


@dataclass(frozen=True, slots=True)
class Sample:
    """A wrapped key to unwrap. `payload` is what must come back, where that is known."""

    measured: Measured
    wrapped: WrappedKey
    bound: EncryptionContext
    payload: bytes | None = field(default=None, repr=False)


class LastCall(Observer):
    """Remembers how the last call ended."""

    def __init__(self) -> None:
        self.request_id = ""

    def call_finished(self, call: Call, result: CallResult) -> None:
        """Remember the provider's id for it."""
        self.request_id = result.request_id


class KeyTrials:
    """The trials of one key. Each method makes one, and returns what the call returned, None where it failed or was not made.

    Once the service is silent nothing else is tried, so that it is waited for once. Raises `AuditError`.
    """

    def __init__(
        self, key: ManagedKey, last_call: LastCall, pairs: EncryptionContext, message: Message | None
    ) -> None:
        self.key_id = ""
        self.reachable: bool | None = None
        self._key, self._last_call, self._message = key, last_call, message
        self._bound = pairs.with_reserved(kmsbridge=PROBE)
        self._exists = False
        self._stopped: Trial | None = None

    def describe(self) -> tuple[Trial, KeyDescription | None]:
        """The key's id and state."""
        trial, key_id = self._try("resolve", "service", lambda: self._key.key_id)
        if key_id is None:
            self._stop("resolve", trial)
            return trial, None
        self.key_id = key_id
        trial, told = self._try("describe", "service", self._key.describe)
        self._exists = told is not None
        return trial, told

    def wrap(self) -> tuple[Trial, Sample | None]:
        """A probe."""
        local = Capability.LOCAL_WRAP in self._key.capabilities and bool(self.key_id)
        measured: Measured = "local" if local else "probe"
        payload = os.urandom(LENGTH)
        trial, wrapped = self._try("wrap", measured, lambda: self._key.wrap(payload, self._bound))
        if wrapped is None:
            return trial, None
        return trial, Sample("probe", wrapped, self._bound, payload)

    def sample(self, version: str) -> Sample:
        """What can be had without wrapping: the message's wrapped key, or one that is not authentic."""
        if self._message is not None and self.key_id in self._message.recipients:
            it = self._message.recipients[self.key_id]
            return Sample("message", WrappedKey(it.key_id, it.key_version, it.wrapped), self._message.bound)
        noise = WrappedKey(self.key_id, version, os.urandom(LENGTH + 28))
        forged = next(iter(self._key.driver.forgeries()), noise)
        return Sample("forged", forged, self._bound)

    def unwrap(self, sample: Sample) -> tuple[Trial, bytes | None]:
        """The sample."""
        return self._try("unwrap", sample.measured, lambda: self._unwrapped(sample))

    def rewrap(self, sample: Sample, payload: bytes | None, wrap: Trial, unwrap: Trial) -> Trial:
        """The sample, by the service where it can; else what the other trials say. `payload` is in it."""
        if self._stopped is not None:
            return self._stopped
        if not self._key.rewraps_from(self.key_id):
            return _combined(wrap, unwrap)
        trial, new = self._try(
            "rewrap", sample.measured, lambda: self._key.rewrap(sample.wrapped, sample.bound)
        )
        if new is None or payload is None:
            return trial
        check, _ = self.unwrap(Sample("probe", new, sample.bound, payload))
        return trial if check.may else replace(check, milliseconds=trial.milliseconds)

    def _unwrapped(self, sample: Sample) -> bytes:
        try:
            payload = self._key.unwrap(sample.wrapped, sample.bound)
        except AuthenticationError:
            if sample.measured != "probe":
                raise
            payload = b""
        if sample.measured == "forged":
            raise KmsError(
                "a wrapped key that is not authentic was unwrapped",
                remedy="report it to the driver's author, and do not use it",
                operation="unwrap",
            )
        if sample.payload is not None and payload != sample.payload:
            raise KmsError(
                "what was wrapped a moment ago does not come back",
                remedy="see that wrapping and unwrapping lead to one key: its address, its public key; "
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
        if operation != "resolve" and measured != "local":  # which may need no service
            self.reachable = True
        return replace(trial, may=True, proven=True, request_id=self._last_call.request_id), result

    def _failed(self, operation: str, trial: Trial, error: KmsBridgeError) -> Trial:
        if isinstance(error, KmsError) and not isinstance(error, _SILENT):
            self.reachable = True
        let_ask = isinstance(error, _LET_ASK) or (self._exists and isinstance(error, KmsKeyNotFound))
        # An error of authenticity has no id of its own, and comes only after a call.
        asked = error if isinstance(error, KmsError) else self._last_call
        told_as = asked.request_id if isinstance(error, (KmsError, AuthenticationError)) else ""
        trial = replace(trial, request_id=told_as, error=type(error).__name__)
        if let_ask and trial.measured in ("message", "forged"):
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
        problem = "allowed to ask, not proven: the message's wrapped key was not taken"
        remedy = "give its context and aad"
    else:
        problem = "allowed to ask, not proven: tried with a wrapped key that is not authentic"
        remedy = "give --message"
    return replace(trial, may=True, problem=problem, remedy=remedy)


def _combined(wrap: Trial, unwrap: Trial) -> Trial:
    """Rewrapping where it is unwrapping and wrapping."""
    parts = (unwrap, wrap)
    worst = next((each for each in parts if each.may is False), None) or next(
        (each for each in parts if each.may is None), unwrap
    )
    times = [each.milliseconds for each in parts if each.milliseconds is not None]
    return replace(
        worst,
        measured="combined",
        milliseconds=round(sum(times), 3) if worst.may else None,
        request_id="",
    )
