"""Drivers that keep an exception which is not theirs, or go by a label."""

from __future__ import annotations

from typing import Any

from kmsbridge.driver import EncryptionContext, ErrorKind, WrappedKey
from kmsbridge.testing.fakes.fake import FakeDriver
from kmsbridge.testing.fakes.service import FakeError, Operation
from tests.mutants.drivers.base import caught_by

FOREIGN = "test_foreign_exception_reaches_the_caller"


class _SaysThatItDoesNotWait(FakeDriver):
    may_wait: bool = False

    def classify(self, error: BaseException, operation: str) -> ErrorKind | None:  # type: ignore[override]
        return None


@caught_by(f"{FOREIGN}[no answer-SoftTimeLimit-unwrap]")
class TranslatesWhatIsNotItsOwn(_SaysThatItDoesNotWait):
    """Takes every exception for a failure of its service."""

    def call(self, operation: Operation, arguments: Any, timeout: float) -> Any:
        try:
            return super().call(operation, arguments, timeout)
        except FakeError:
            raise
        except Exception:  # noqa: BLE001 - that is the fault
            raise FakeError(ErrorKind.UNAVAILABLE) from None


@caught_by(f"{FOREIGN}[no answer-TimeoutError-wrap]")
class ClaimsEveryTimeout(_SaysThatItDoesNotWait):
    """Says of any `TimeoutError` that its service was slow."""

    def classify(self, error: BaseException, operation: str) -> ErrorKind | None:  # type: ignore[override]
        return ErrorKind.TIMEOUT if isinstance(error, TimeoutError) else super().classify(error, operation)


@caught_by(f"{FOREIGN}[no answer-KeyboardInterrupt-describe]")
class SurvivesCtrlC(_SaysThatItDoesNotWait):
    """Asks again where it was interrupted."""

    def call(self, operation: Operation, arguments: Any, timeout: float) -> Any:
        try:
            return super().call(operation, arguments, timeout)
        except KeyboardInterrupt:
            return super().call(operation, arguments, 0.1)


@caught_by("test_label_of_the_version_decides_nothing[no-such-version]")
class GoesByTheLabel(FakeDriver):
    """Unwraps what is labelled with a version that there is, whatever wrapped it."""

    def unwrap(self, wrapped: WrappedKey, context: EncryptionContext, *, timeout: float) -> bytes:
        if not wrapped.version.isdecimal():
            raise FakeError(ErrorKind.KEY_NOT_FOUND)
        return super().unwrap(wrapped, context, timeout=timeout)
