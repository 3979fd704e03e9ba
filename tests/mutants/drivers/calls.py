"""Drivers that misjudge or hide what goes wrong."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from typing import Any

from kmsbridge_testing.fakes.harnesses import FakeHttpHarness
from kmsbridge_testing.fakes.http_fake import FakeHttpDriver

from kmsbridge.driver import EncryptionContext, ErrorKind, KeyDescription, KeyState, WrappedKey
from kmsbridge.driverkit.deadline import left
from kmsbridge.testing.fakes.fake import FakeDriver
from kmsbridge.testing.fakes.service import Caller, FakeError, Operation
from tests.mutants.drivers.base import caught_by

FAULT = "test_fault_is_told_and_survived"


@caught_by("test_encrypt_only_caller_wraps_and_cannot_unwrap")
class SwallowsDenial(FakeDriver):
    """Answers a denied unwrap with zeros."""

    def unwrap(self, wrapped: WrappedKey, context: EncryptionContext, *, timeout: float) -> bytes:
        try:
            return super().unwrap(wrapped, context, timeout=timeout)
        except FakeError as error:
            if error.kind is ErrorKind.ACCESS_DENIED:
                return bytes(32)
            raise


@caught_by("test_disabled_key_is_told[unwrap]", FakeHttpHarness)
class CallsDisabledDenied(FakeHttpDriver):
    """Takes a disabled key for a right that is missing."""

    def classify(self, error: BaseException, operation: str) -> ErrorKind:
        kind = super().classify(error, operation)
        return ErrorKind.ACCESS_DENIED if kind is ErrorKind.KEY_DISABLED else kind


@caught_by("test_expired_credentials_are_told[unwrap]", FakeHttpHarness)
class CallsExpiredDenied(FakeHttpDriver):
    """Takes credentials that are over for a right that is missing."""

    def classify(self, error: BaseException, operation: str) -> ErrorKind:
        kind = super().classify(error, operation)
        return ErrorKind.ACCESS_DENIED if kind is ErrorKind.UNAUTHENTICATED else kind


@caught_by(f"{FAULT}[connection refused-unwrap]", FakeHttpHarness)
class CallsOutagesInvalid(FakeHttpDriver):
    """Takes a service that is down for a request that is wrong, so that nobody tries again."""

    def classify(self, error: BaseException, operation: str) -> ErrorKind:
        kind = super().classify(error, operation)
        return ErrorKind.INVALID_REQUEST if kind is ErrorKind.UNAVAILABLE else kind


@caught_by("test_wrong_context_is_refused[values swapped]", FakeHttpHarness)
class CallsForgeryAnOutage(FakeHttpDriver):
    """Takes what is not authentic for an outage."""

    def classify(self, error: BaseException, operation: str) -> ErrorKind:
        kind = super().classify(error, operation)
        return ErrorKind.UNAVAILABLE if kind is ErrorKind.NOT_AUTHENTIC else kind


@caught_by("test_classify_is_total[ValueError]")
class TakesBugsForForgery(FakeDriver):
    """Says of any exception that the message was changed."""

    def classify(self, error: BaseException, operation: str) -> ErrorKind:
        return ErrorKind.NOT_AUTHENTIC


@caught_by("test_classify_is_total[RuntimeError]")
class ClassifiesItsOwnAlone(FakeDriver):
    """Fails over an exception that it does not know."""

    def classify(self, error: BaseException, operation: str) -> ErrorKind:
        return error.kind  # type: ignore[attr-defined, no-any-return]


@caught_by(f"{FAULT}[status 503-unwrap]")
class RetriesForEver(FakeDriver):
    """Tries again beneath the library, for as long as the time allows."""

    def call(self, operation: Operation, arguments: Any, timeout: float) -> Any:
        for _ in range(50):
            try:
                return super().call(operation, arguments, timeout)
            except FakeError as error:
                if error.kind is not ErrorKind.UNAVAILABLE:
                    raise
        raise FakeError(ErrorKind.UNAVAILABLE)


@caught_by("test_refused_call_is_made_once[unwrap]")
class RetriesRefusals(FakeDriver):
    """Asks again whether a disabled key is disabled."""

    def call(self, operation: Operation, arguments: Any, timeout: float) -> Any:
        try:
            return super().call(operation, arguments, timeout)
        except FakeError as error:
            if error.kind is not ErrorKind.KEY_DISABLED:
                raise
        return super().call(operation, arguments, timeout)


@caught_by("test_attempt_connects_once[connection refused-unwrap]", FakeHttpHarness)
class ConnectsAgain(FakeHttpDriver):
    """Tries again to connect where it was refused."""

    def _connect(self) -> socket.socket:
        with contextlib.suppress(ConnectionRefusedError):
            return super()._connect()
        return super()._connect()


@caught_by("test_late_answer_is_waited_for[an answer half a second late-unwrap]")
class HasNoPatience(FakeDriver):
    """Gives a call a fifth of a second, whatever it was given."""

    def call(self, operation: Operation, arguments: Any, timeout: float) -> Any:
        return super().call(operation, arguments, min(timeout, 0.2))


@caught_by("test_driver_keeps_its_timeout[no answer-unwrap]")
class IgnoresTimeouts(FakeDriver):
    """Waits as long as it likes."""

    def call(self, operation: Operation, arguments: Any, timeout: float) -> Any:
        return super().call(operation, arguments, max(timeout, 4.0))


@caught_by("test_driver_keeps_its_timeout[an answer byte by byte-unwrap]", FakeHttpHarness)
class TimesEachRead(FakeHttpDriver):
    """Has patience for each byte, instead of for the whole answer."""

    def _receive(self, sock: socket.socket) -> bytes:
        sock.settimeout(max(0.1, left()))
        data, shown = b"", time.monotonic() + left() + 4
        # Not to the end: that the deadline is not kept shows long before.
        while time.monotonic() < shown and (block := socket.socket.recv(sock, 65536)):
            data += block
        return data


@caught_by("test_unreachable_service_is_told[a certificate of an unknown CA-wrap]", FakeHttpHarness)
class TrustsEveryCertificate(FakeHttpDriver):
    """Does not ask who it is speaking with."""

    def _tls(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context


@caught_by(f"{FAULT}[connection refused-describe]")
class StaysBroken(FakeDriver):
    """Fails for ever once it has failed."""

    def __init__(self, name: str, caller: Caller) -> None:
        super().__init__(name, caller)
        self._failure: FakeError | None = None

    def call(self, operation: Operation, arguments: Any, timeout: float) -> Any:
        if self._failure is not None:
            raise self._failure
        try:
            return super().call(operation, arguments, timeout)
        except FakeError as error:
            self._failure = error
            raise


@caught_by("test_disabled_key_is_described")
class DescribesTheBest(FakeDriver):
    """Says of every key that it is enabled."""

    def describe(self, *, timeout: float) -> KeyDescription:
        description = super().describe(timeout=timeout)
        return KeyDescription(description.key_id, KeyState.ENABLED, description.version)


@caught_by("test_description_denies_no_right_that_the_caller_has")
class DeniesRights(FakeDriver):
    """Says of a caller that may do everything that it may do nothing."""

    def describe(self, *, timeout: float) -> KeyDescription:
        description = super().describe(timeout=timeout)
        if description.may_wrap and description.may_unwrap:
            return description._replace(may_wrap=False, may_unwrap=False)
        return description


@caught_by("test_unknown_key_is_told[wrap]")
class CreatesKeys(FakeDriver):
    """Makes the key that it is asked for, where there is none."""

    def wrap(self, plaintext: bytes, context: EncryptionContext, *, timeout: float) -> WrappedKey:
        try:
            return super().wrap(plaintext, context, timeout=timeout)
        except FakeError as error:
            if error.kind is not ErrorKind.KEY_NOT_FOUND:
                raise
            self.service.create(self.name)
            return super().wrap(plaintext, context, timeout=timeout)
