"""Group 1: every payload that is wrapped comes back."""

from __future__ import annotations

import itertools
import secrets

import pytest

from kmsbridge.errors import LimitExceeded
from kmsbridge.keys import ManagedKey
from kmsbridge_testing.contract.base import Cases, Keys, bound, refused


class RoundtripCases(Cases):
    """Cases for payloads of every length up to `max_plaintext`."""

    @pytest.mark.parametrize("length", [0, 1, 15, 16, 31, 32, 33, 64])
    def test_payload_survives(self, key: ManagedKey, length: int) -> None:
        """A payload of this length comes back unchanged."""
        plaintext = secrets.token_bytes(length)
        assert key.unwrap(key.wrap(plaintext, bound()), bound()) == plaintext

    def test_largest_payload_survives(self, key: ManagedKey) -> None:
        """A payload of `max_plaintext` bytes comes back unchanged."""
        plaintext = secrets.token_bytes(key.max_plaintext)
        assert key.unwrap(key.wrap(plaintext, bound()), bound()) == plaintext

    def test_larger_payload_is_refused(self, key: ManagedKey) -> None:
        """One byte more than `max_plaintext` is a `LimitExceeded`."""
        refused(lambda: key.wrap(bytes(key.max_plaintext + 1), bound()), LimitExceeded)

    @pytest.mark.parametrize(
        "plaintext",
        [bytes(range(256))[:128], bytes(range(128, 256)), bytes(32), b"\xff" * 32, b"\r\n\0\n" * 8],
        ids=["lower half of the byte values", "upper half", "zeros", "ones", "line ends"],
    )
    def test_every_byte_value_survives(self, keys: Keys, key: ManagedKey, plaintext: bytes) -> None:
        """No encoding as text and no trimming changes a payload."""
        for start in range(0, len(plaintext), key.max_plaintext):
            part = plaintext[start : start + key.max_plaintext]
            assert key.unwrap(key.wrap(part, bound()), bound()) == part

    def test_two_wraps_of_one_payload_differ(self, key: ManagedKey, plaintext: bytes) -> None:
        """Two wrapped keys do not show that they contain the same payload."""
        assert key.wrap(plaintext, bound()).ciphertext != key.wrap(plaintext, bound()).ciphertext

    def test_wrapped_key_does_not_show_the_payload(self, key: ManagedKey, plaintext: bytes) -> None:
        """No eight bytes of the payload appear in the wrapped key."""
        ciphertext = key.wrap(plaintext, bound()).ciphertext
        windows = (plaintext[n : n + 8] for n in range(len(plaintext) - 7))
        assert not [window for window in windows if window in ciphertext or window[::-1] in ciphertext]

    def test_each_wrapped_key_opens_to_its_own_payload(self, key: ManagedKey) -> None:
        """Wrapped keys unwrap in any order, and more than once."""
        sent = [secrets.token_bytes(32) for _ in range(3)]
        wrapped = [key.wrap(plaintext, bound()) for plaintext in sent]
        for order in itertools.permutations(range(3)):
            assert [key.unwrap(wrapped[n], bound()) for n in order] == [sent[n] for n in order]

    def test_another_driver_of_the_key_unwraps(self, keys: Keys, plaintext: bytes) -> None:
        """A second driver of the key unwraps: nothing needed stays in the one that wrapped."""
        wrapped = keys.open().wrap(plaintext, bound())
        assert keys.open().unwrap(wrapped, bound()) == plaintext
