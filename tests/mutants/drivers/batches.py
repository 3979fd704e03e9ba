"""Drivers that mistreat batches, or what they call a forgery."""

from __future__ import annotations

from collections.abc import Sequence

from kmsbridge.context import EncryptionContext
from kmsbridge.driver import ErrorKind, WrappedKey
from kmsbridge.testing.fakes.fake import FakeDriver
from kmsbridge.testing.fakes.service import FakeError
from tests.mutants.drivers.base import caught_by

Payloads = Sequence[tuple[bytes, EncryptionContext]]
Items = Sequence[tuple[WrappedKey, EncryptionContext]]
REFUSED = "test_refused_payload_in_a_batch_is_the_only_one_refused"


@caught_by("test_wrap_many_is_there_where_declared")
class LosesTheOrderOfWraps(FakeDriver):
    """Gives a batch's results as they come."""

    def wrap_many(self, items: Payloads, *, timeout: float) -> list[WrappedKey | ErrorKind]:
        return super().wrap_many(items, timeout=timeout)[::-1]


@caught_by("test_wrap_many_binds_each_context")
class WrapsABatchInOneContext(FakeDriver):
    """Takes the first item's context for all."""

    def wrap_many(self, items: Payloads, *, timeout: float) -> list[WrappedKey | ErrorKind]:
        return super().wrap_many([(plaintext, items[0][1]) for plaintext, _ in items], timeout=timeout)


@caught_by("test_wrap_many_reports_the_version")
class ForgetsTheVersionOfABatch(FakeDriver):
    """Reports a version of single wraps alone."""

    def wrap_many(self, items: Payloads, *, timeout: float) -> list[WrappedKey | ErrorKind]:
        results = super().wrap_many(items, timeout=timeout)
        return [each._replace(version="") if isinstance(each, WrappedKey) else each for each in results]


@caught_by(REFUSED)
class HidesAFailedWrap(FakeDriver):
    """Gives the first wrapped key in the place of one that failed."""

    def wrap_many(self, items: Payloads, *, timeout: float) -> list[WrappedKey | ErrorKind]:
        results = super().wrap_many(items, timeout=timeout)
        return [each if isinstance(each, WrappedKey) else results[0] for each in results]


@caught_by(REFUSED)
class DropsAFailedWrap(FakeDriver):
    """Leaves out the items that failed."""

    def wrap_many(self, items: Payloads, *, timeout: float) -> list[WrappedKey | ErrorKind]:
        return [each for each in super().wrap_many(items, timeout=timeout) if isinstance(each, WrappedKey)]


@caught_by("test_largest_batch_works")
class OverstatesItsBatches(FakeDriver):
    """Says that the service takes one item more than it does."""

    batch_limit: int = FakeDriver.batch_limit + 1


@caught_by("test_outage_fails_a_batch_whole[connection refused-unwrap]")
class TakesAnOutageForEachItems(FakeDriver):
    """Gives what failed the call as the failure of each item, so that nobody tries again."""

    def unwrap_many(self, items: Items, *, timeout: float) -> list[bytes | ErrorKind]:
        try:
            return super().unwrap_many(items, timeout=timeout)
        except FakeError as error:
            return [error.kind] * len(items)


@caught_by("test_decrypt_only_caller_cannot_wrap_a_batch")
class WrapsBatchesForAnybody(FakeDriver):
    """Wraps a batch with the rights of another caller."""

    def wrap_many(self, items: Payloads, *, timeout: float) -> list[WrappedKey | ErrorKind]:
        mighty = FakeDriver(self.name, self._caller._replace(role="both"))
        return mighty.wrap_many(items, timeout=timeout)


@caught_by("test_forgeries_are_refused")
class ForgesWhatOpens(FakeDriver):
    """Wraps something, and calls it a forgery."""

    def forgeries(self) -> Sequence[WrappedKey]:
        return (self.wrap(b"forged", EncryptionContext.of({"a": "b"}), timeout=10),)

    def unwrap(self, wrapped: WrappedKey, context: EncryptionContext, *, timeout: float) -> bytes:
        try:
            return super().unwrap(wrapped, context, timeout=timeout)
        except FakeError:
            return super().unwrap(wrapped, EncryptionContext.of({"a": "b"}), timeout=timeout)
