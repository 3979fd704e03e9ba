"""Drivers that bind less of the context than they say."""

from __future__ import annotations

from kmsbridge.context import EMPTY
from kmsbridge.driver import EncryptionContext, WrappedKey
from kmsbridge.testing.fakes.fake import FakeDriver
from tests.mutants.drivers.base import caught_by

WRONG = "test_wrong_context_is_refused"


@caught_by(f"{WRONG}[no context]")
class IgnoresTheContext(FakeDriver):
    """Binds nothing."""

    def bound(self, context: EncryptionContext) -> bytes:
        return EMPTY.canonical()


@caught_by(f"{WRONG}[last value changed]")
class IgnoresOneValue(FakeDriver):
    """Binds every value but the one of `c`."""

    def bound(self, context: EncryptionContext) -> bytes:
        return repr(sorted((name, "" if name == "c" else value) for name, value in context.items())).encode()


@caught_by(f"{WRONG}[first name changed]")
class IgnoresNames(FakeDriver):
    """Binds the values alone."""

    def bound(self, context: EncryptionContext) -> bytes:
        return repr(sorted(context.values())).encode()


@caught_by(f"{WRONG}[boundary moved between pairs]")
class JoinsPairs(FakeDriver):
    """Joins names and values without their lengths."""

    def bound(self, context: EncryptionContext) -> bytes:
        return "".join(name + value for name, value in sorted(context.items())).encode()


@caught_by(f"{WRONG}[pairs written as one value]")
class JoinsPairsWithSigns(FakeDriver):
    """Joins them with signs that a value may hold."""

    def bound(self, context: EncryptionContext) -> bytes:
        return ",".join(f"{name}={value}" for name, value in sorted(context.items())).encode()


@caught_by(f"{WRONG}[case of a value]")
class FoldsCase(FakeDriver):
    """Takes capitals for small letters, as some stores do."""

    def bound(self, context: EncryptionContext) -> bytes:
        return repr(sorted((name, value.lower()) for name, value in context.items())).encode()


@caught_by(f"{WRONG}[end of a long value]")
class BindsTheStart(FakeDriver):
    """Binds the first 256 bytes, as a field of fixed width would hold them."""

    def bound(self, context: EncryptionContext) -> bytes:
        return context.canonical()[:256]


@caught_by("test_order_of_the_pairs_does_not_matter")
class BindsTheOrder(FakeDriver):
    """Binds the pairs in the order they were given in."""

    def bound(self, context: EncryptionContext) -> bytes:
        return repr(list(context.items())).encode()


@caught_by("test_context_is_accepted[many scripts]")
class TakesAsciiAlone(FakeDriver):
    """Sends the context in a way that holds ASCII only."""

    def bound(self, context: EncryptionContext) -> bytes:
        return repr(sorted(context.items())).encode("ascii")


@caught_by("test_reserved_pair_is_bound")
class IgnoresTheReservedPair(FakeDriver):
    """Lets a data key be opened as a direct message."""

    def bound(self, context: EncryptionContext) -> bytes:
        return repr(sorted(pair for pair in context.items() if pair[0] != "kmsbridge")).encode()


@caught_by("test_rewrap_by_the_service_keeps_the_binding")
class RewrapsUnbound(FakeDriver):
    """Has the service rewrap into no context at all."""

    def rewrap(self, wrapped: WrappedKey, context: EncryptionContext, *, timeout: float) -> WrappedKey:
        plaintext = self.unwrap(wrapped, context, timeout=timeout)
        return self.wrap(plaintext, EMPTY, timeout=timeout)
