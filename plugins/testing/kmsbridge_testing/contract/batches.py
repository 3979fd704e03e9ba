"""Group 14: `wrap_many` and `unwrap_many` return each item's result in its place."""

from __future__ import annotations

import secrets
from functools import partial
from typing import Final

import pytest

from kmsbridge.driver import Capability, EncryptionContext, ErrorKind, WrappedKey
from kmsbridge.errors import AuthenticationError, KmsAccessDenied, KmsError, KmsKeyDisabled
from kmsbridge.keys import ManagedKey
from kmsbridge_testing.contract.base import TIMEOUT, Cases, Keys, bound, cut, needs, refused
from kmsbridge_testing.contract.network import ERRORS
from kmsbridge_testing.contract.tampering import REFUSALS
from kmsbridge_testing.harness import Fault, Harness

MOST: Final = 1000
"""The largest batch that is tried, whatever the driver allows."""

Items = list[tuple[bytes, EncryptionContext]]


def payloads(number: int) -> Items:
    """Return different payloads, each with its own context."""
    return [(secrets.token_bytes(32), bound({"n": str(n)})) for n in range(number)]


class BatchCases(Cases):
    """Cases for `wrap_many` and `unwrap_many`, if their capabilities are declared."""

    def test_wrap_many_is_there_where_declared(self, keys: Keys, key: ManagedKey) -> None:
        """With BATCH_WRAP each result is in its place; without it, the method raises `NotImplementedError`."""
        items = payloads(5)
        if Capability.BATCH_WRAP not in key.capabilities:
            with pytest.raises(NotImplementedError):
                keys.driver().wrap_many(items, timeout=TIMEOUT)
            return
        wrapped = _wrapped(key, items)
        assert [each.key_id for each in wrapped] == [key.key_id] * len(items)
        assert _opened(key, wrapped, items) == [plaintext for plaintext, _ in items]
        assert len({each.ciphertext for each in wrapped}) == len(items)

    def test_unwrap_many_is_there_where_declared(self, keys: Keys, key: ManagedKey) -> None:
        """With BATCH_UNWRAP each result is in its place; without it, the method raises `NotImplementedError`."""
        if Capability.BATCH_UNWRAP not in key.capabilities:
            with pytest.raises(NotImplementedError):
                keys.driver().unwrap_many([(key.wrap(bytes(32), bound()), bound())], timeout=TIMEOUT)
            return
        items = payloads(5)
        batch = [(key.wrap(*each), each[1]) for each in items]
        assert key.unwrap_many(batch) == [plaintext for plaintext, _ in items]
        assert key.unwrap_many(batch[::-1]) == [plaintext for plaintext, _ in items[::-1]]

    def test_largest_batch_works(self, key: ManagedKey) -> None:
        """A batch of `batch_limit` payloads of the length of a data key works."""
        items = payloads(min(key.batch_limit, MOST))
        batches = Capability.BATCH_WRAP in key.capabilities
        wrapped = _wrapped(key, items) if batches else [key.wrap(*each) for each in items]
        assert _opened(key, wrapped, items) == [plaintext for plaintext, _ in items]

    def test_wrap_many_binds_each_context(self, key: ManagedKey) -> None:
        """A wrapped key of a batch unwraps in its own context, and not in that of another item."""
        if Capability.BATCH_WRAP in key.capabilities:
            items = payloads(2)
            for wrapped, (_, context) in zip(_wrapped(key, items), items[::-1], strict=True):
                refused(partial(key.unwrap, wrapped, context), AuthenticationError)

    def test_wrap_many_reports_the_version(self, key: ManagedKey) -> None:
        """A batch reports the version, as a single wrap does."""
        if Capability.BATCH_WRAP in key.capabilities:
            assert {each.version for each in _wrapped(key, payloads(2))} == {key.describe().version}

    def test_batch_binds_each_context(self, key: ManagedKey, plaintext: bytes) -> None:
        """In a batch each wrapped key has its own context, and only those in the right one unwrap."""
        if Capability.BATCH_UNWRAP in key.capabilities:
            one, other = (key.wrap(plaintext, bound({"n": n})) for n in "12")
            contexts = bound({"n": "1"}), bound({"n": "2"})
            mixed = key.unwrap_many(
                [(one, contexts[0]), (one, contexts[1]), (other, contexts[1]), (other, contexts[0])]
            )
            assert [type(each) for each in mixed] == [bytes, AuthenticationError] * 2

    def test_changed_one_in_a_batch_is_the_only_one_refused(self, key: ManagedKey, plaintext: bytes) -> None:
        """A failed item's error is in the item's place, and the other items succeed."""
        if Capability.BATCH_UNWRAP in key.capabilities:
            wrapped = key.wrap(plaintext, bound())
            results = key.unwrap_many([(each, bound()) for each in (wrapped, cut(wrapped), wrapped)])
            assert results[::2] == [plaintext] * 2
            assert type(results[1]) in REFUSALS

    def test_refused_payload_in_a_batch_is_the_only_one_refused(self, keys: Keys, key: ManagedKey) -> None:
        """A payload beyond `max_plaintext` fails alone, or is wrapped; the library itself would not send it."""
        if Capability.BATCH_WRAP not in key.capabilities:
            return
        driver = keys.driver()
        items = payloads(3)
        items[1] = secrets.token_bytes(driver.max_plaintext + 1), items[1][1]
        results = driver.wrap_many(items, timeout=TIMEOUT)
        assert len(results) == len(items)
        for number, (result, (plaintext, context)) in enumerate(zip(results, items, strict=True)):
            if number == 1 and isinstance(result, ErrorKind):
                continue
            assert isinstance(result, WrappedKey)
            assert driver.unwrap(result, context, timeout=TIMEOUT) == plaintext

    @needs("break_network")
    @pytest.mark.parametrize("operation", ["wrap", "unwrap"])
    @pytest.mark.parametrize(
        "fault", [Fault.REFUSED, Fault.HALF, Fault.UNAVAILABLE], ids=lambda fault: fault.value
    )
    def test_outage_fails_a_batch_whole(
        self, harness: Harness, key: ManagedKey, fault: Fault, operation: str
    ) -> None:
        """An outage is raised, so that the library retries, and is not the result of single items."""
        wrapped = key.wrap(bytes(32), bound())
        harness.break_network(fault)
        if operation == "wrap" and Capability.BATCH_WRAP in key.capabilities:
            refused(lambda: key.wrap_many(payloads(2)), *ERRORS[fault])
        if operation == "unwrap" and Capability.BATCH_UNWRAP in key.capabilities:
            refused(lambda: key.unwrap_many([(wrapped, bound())] * 2), *ERRORS[fault])

    @needs("disable")
    def test_disabled_key_is_told_of_a_batch(self, harness: Harness, key: ManagedKey) -> None:
        """`KmsKeyDisabled`, raised for the whole batch or as the result of each item."""
        wrapped = key.wrap(bytes(32), bound())
        harness.disable("first")
        assert set(_refusals(key, wrapped)) <= {KmsKeyDisabled}

    @needs("roles")
    def test_encrypt_only_caller_cannot_unwrap_a_batch(self, keys: Keys, key: ManagedKey) -> None:
        """An encrypt-only caller is denied a batch of unwraps, and can wrap a batch."""
        encrypting = keys.open(role="encrypt-only")
        if Capability.BATCH_UNWRAP in encrypting.capabilities:
            assert set(_unwrap_refusals(encrypting, key.wrap(bytes(32), bound()))) == {KmsAccessDenied}
        if Capability.BATCH_WRAP in encrypting.capabilities:
            items = payloads(2)
            assert _opened(key, _wrapped(encrypting, items), items) == [plaintext for plaintext, _ in items]

    @needs("roles")
    def test_decrypt_only_caller_cannot_wrap_a_batch(self, keys: Keys) -> None:
        """A decrypt-only caller is denied a batch of wraps."""
        decrypting = keys.open(role="decrypt-only")
        if Capability.BATCH_WRAP in decrypting.capabilities:
            assert set(_wrap_refusals(decrypting)) == {KmsAccessDenied}


def _wrapped(key: ManagedKey, items: Items) -> list[WrappedKey]:
    results = key.wrap_many(items)
    wrapped = [each for each in results if isinstance(each, WrappedKey)]
    assert len(wrapped) == len(items), results
    return wrapped


def _opened(key: ManagedKey, wrapped: list[WrappedKey], items: Items) -> list[object]:
    batch = [(each, context) for each, (_, context) in zip(wrapped, items, strict=True)]
    if Capability.BATCH_UNWRAP in key.capabilities:
        return [*key.unwrap_many(batch)]
    return [key.unwrap(*each) for each in batch]


def _refusals(key: ManagedKey, wrapped: WrappedKey) -> list[type]:
    """Return the classes of the results of both kinds of batches, as far as the driver has them."""
    wraps = Capability.BATCH_WRAP in key.capabilities
    unwraps = Capability.BATCH_UNWRAP in key.capabilities
    return (_wrap_refusals(key) if wraps else []) + (_unwrap_refusals(key, wrapped) if unwraps else [])


def _wrap_refusals(key: ManagedKey) -> list[type]:
    """Return the classes of the results of a batch of two, or that of the error that it raised."""
    try:
        return [type(each) for each in key.wrap_many(payloads(2))]
    except KmsError as error:
        return [type(error)]


def _unwrap_refusals(key: ManagedKey, wrapped: WrappedKey) -> list[type]:
    try:
        return [type(each) for each in key.unwrap_many([(wrapped, bound())] * 2)]
    except KmsError as error:
        return [type(error)]
