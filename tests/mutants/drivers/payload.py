"""Drivers that mistreat what they wrap, or what comes back."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from typing import Any, ClassVar

from kmsbridge.driver import EncryptionContext, ErrorKind, WrappedKey
from kmsbridge.testing.fakes.fake import FakeDriver
from kmsbridge.testing.fakes.service import Caller, FakeError
from tests.mutants.drivers.base import caught_by

Items = Sequence[tuple[WrappedKey, EncryptionContext]]


@caught_by("test_wrapped_key_does_not_show_the_payload")
class HardlyEncrypts(FakeDriver):
    """Returns the plaintext, back to front."""

    def wrap(self, plaintext: bytes, context: EncryptionContext, *, timeout: float) -> WrappedKey:
        sound = super().wrap(plaintext, context, timeout=timeout)
        return sound._replace(ciphertext=plaintext[::-1] + hashlib.sha256(context.canonical()).digest())


@caught_by("test_two_wraps_of_one_payload_differ")
class EncryptsAlike(FakeDriver):
    """Gives the same wrapped key for the same payload."""

    known: ClassVar[dict[tuple[str, bytes, bytes], WrappedKey]] = {}

    def wrap(self, plaintext: bytes, context: EncryptionContext, *, timeout: float) -> WrappedKey:
        name = (self.name, plaintext, context.canonical())
        if name not in self.known:
            self.known[name] = super().wrap(plaintext, context, timeout=timeout)
        return self.known[name]


@caught_by("test_each_wrapped_key_opens_to_its_own_payload")
class ReturnsAStaleKey(FakeDriver):
    """Remembers the first plaintext, whatever it is asked for after it."""

    stale: bytes | None = None

    def unwrap(self, wrapped: WrappedKey, context: EncryptionContext, *, timeout: float) -> bytes:
        plaintext = super().unwrap(wrapped, context, timeout=timeout)
        self.stale = self.stale or plaintext
        return self.stale


@caught_by("test_every_byte_value_survives[line ends]")
class StripsPayloads(FakeDriver):
    """Treats the payload as text."""

    def unwrap(self, wrapped: WrappedKey, context: EncryptionContext, *, timeout: float) -> bytes:
        return super().unwrap(wrapped, context, timeout=timeout).strip()


@caught_by("test_largest_payload_survives")
class OverstatesItsLimit(FakeDriver):
    """Says that it wraps more than the service takes."""

    max_plaintext: int = FakeDriver.max_plaintext + 1


@caught_by("test_each_truncation_is_refused")
class AcceptsTruncation(FakeDriver):
    """Finds what it wrapped by the start of it."""

    def __init__(self, name: str, caller: Caller) -> None:
        super().__init__(name, caller)
        self._made: list[tuple[bytes, bytes]] = []

    def wrap(self, plaintext: bytes, context: EncryptionContext, *, timeout: float) -> WrappedKey:
        wrapped = super().wrap(plaintext, context, timeout=timeout)
        self._made.append((wrapped.ciphertext, plaintext))
        return wrapped

    def unwrap(self, wrapped: WrappedKey, context: EncryptionContext, *, timeout: float) -> bytes:
        for ciphertext, plaintext in self._made:
            if len(wrapped.ciphertext) > len(ciphertext) // 2 and ciphertext.startswith(wrapped.ciphertext):
                return plaintext
        return super().unwrap(wrapped, context, timeout=timeout)


@caught_by("test_appended_bytes_are_refused[newline]")
class AcceptsAppendedBytes(FakeDriver):
    """Overlooks white space, as lenient decoders do."""

    def unwrap(self, wrapped: WrappedKey, context: EncryptionContext, *, timeout: float) -> bytes:
        lenient = wrapped._replace(ciphertext=wrapped.ciphertext.rstrip(b" \n"))
        return super().unwrap(lenient, context, timeout=timeout)


@caught_by("test_changed_version_opens_nothing_else[path of another key]")
class CallsStrangeVersionsAnOutage(FakeDriver):
    """Takes a version that is no number for a service that is down."""

    def unwrap(self, wrapped: WrappedKey, context: EncryptionContext, *, timeout: float) -> bytes:
        if not wrapped.version.isdigit():
            raise FakeError(ErrorKind.UNAVAILABLE)
        return super().unwrap(wrapped, context, timeout=timeout)


@caught_by("test_version_selects_no_other_key")
class FollowsTheVersion(FakeDriver):
    """Puts the version into a path, and unwraps with the key that this leads to."""

    def unwrap(self, wrapped: WrappedKey, context: EncryptionContext, *, timeout: float) -> bytes:
        if wrapped.version.startswith("../"):
            named = FakeDriver(wrapped.version.split("/")[1], self._caller)
            return named.unwrap(wrapped, context, timeout=timeout)
        return super().unwrap(wrapped, context, timeout=timeout)


@caught_by("test_another_key_refuses")
class OpensForAnyKey(FakeDriver):
    """Unwraps with the key that the message names instead of its own."""

    def unwrap(self, wrapped: WrappedKey, context: EncryptionContext, *, timeout: float) -> bytes:
        named = FakeDriver(wrapped.key_id.partition(":")[2], self._caller)
        return named.unwrap(wrapped, context, timeout=timeout)


@caught_by("test_wrapped_key_names_its_key")
class NamesAnotherKey(FakeDriver):
    """Puts another key's id on what it wraps."""

    def wrap(self, plaintext: bytes, context: EncryptionContext, *, timeout: float) -> WrappedKey:
        return super().wrap(plaintext, context, timeout=timeout)._replace(key_id="fake:another")


@caught_by("test_new_wraps_carry_the_new_version")
class ReportsTheOldVersion(FakeDriver):
    """Says of everything that it is of the first version."""

    def wrap(self, plaintext: bytes, context: EncryptionContext, *, timeout: float) -> WrappedKey:
        return super().wrap(plaintext, context, timeout=timeout)._replace(version="1")


@caught_by("test_wrapped_before_a_rotation_opens_after_it")
class ForgetsOldVersions(FakeDriver):
    """Unwraps with the current version alone."""

    def unwrap(self, wrapped: WrappedKey, context: EncryptionContext, *, timeout: float) -> bytes:
        if wrapped.version != self.describe(timeout=timeout).version:
            wrapped = wrapped._replace(ciphertext=b"\0")
        return super().unwrap(wrapped, context, timeout=timeout)


@caught_by("test_unwrap_many_is_there_where_declared")
class LosesTheOrder(FakeDriver):
    """Gives a batch's results as they come."""

    def unwrap_many(self, items: Items, *, timeout: float) -> list[bytes | ErrorKind]:
        return super().unwrap_many(items, timeout=timeout)[::-1]


@caught_by("test_changed_one_in_a_batch_is_the_only_one_refused")
class HidesABatchFailure(FakeDriver):
    """Gives no bytes where an item failed."""

    def unwrap_many(self, items: Items, *, timeout: float) -> list[bytes | ErrorKind]:
        results = super().unwrap_many(items, timeout=timeout)
        return [each if isinstance(each, bytes) else b"" for each in results]


@caught_by("test_changed_one_in_a_batch_is_the_only_one_refused")
class DropsABatchFailure(FakeDriver):
    """Leaves out the items that failed."""

    def unwrap_many(self, items: Items, *, timeout: float) -> list[bytes | ErrorKind]:
        return [each for each in super().unwrap_many(items, timeout=timeout) if isinstance(each, bytes)]


@caught_by("test_batch_binds_each_context")
class GivesABatchOneContext(FakeDriver):
    """Takes the first item's context for all."""

    def unwrap_many(self, items: Items, *, timeout: float) -> list[bytes | ErrorKind]:
        return super().unwrap_many([(wrapped, items[0][1]) for wrapped, _ in items], timeout=timeout)


@caught_by("test_many_threads_share_a_driver")
class MixesThreads(FakeDriver):
    """Keeps the answer of a call where other calls put theirs."""

    def __init__(self, name: str, caller: Caller) -> None:
        super().__init__(name, caller)
        self._answer: Any = None

    def unwrap(self, wrapped: WrappedKey, context: EncryptionContext, *, timeout: float) -> bytes:
        self._answer = super().unwrap(wrapped, context, timeout=timeout)
        time.sleep(0.005)
        answer: bytes = self._answer
        return answer
