"""Group 1: what is wrapped comes back, whatever it is."""

from __future__ import annotations

import itertools
import secrets

import pytest

from kmsbridge.errors import LimitExceeded
from kmsbridge.keys import ManagedKey
from kmsbridge_testing.contract.base import Cases, Keys, bound, refused


class RoundtripCases(Cases):
    """Wrapping and unwrapping payloads of every size that a driver allows."""

    @pytest.mark.parametrize("length", [0, 1, 15, 16, 31, 32, 33, 64])
    def test_payload_survives(self, key: ManagedKey, length: int) -> None:
        """What was wrapped is what is unwrapped."""
        plaintext = secrets.token_bytes(length)
        assert key.unwrap(key.wrap(plaintext, bound()), bound()) == plaintext

    def test_largest_payload_survives(self, key: ManagedKey) -> None:
        """`max_plaintext` is no exaggeration."""
        plaintext = secrets.token_bytes(key.max_plaintext)
        assert key.unwrap(key.wrap(plaintext, bound()), bound()) == plaintext

    def test_larger_payload_is_refused(self, key: ManagedKey) -> None:
        """One byte more is `LimitExceeded`."""
        refused(lambda: key.wrap(bytes(key.max_plaintext + 1), bound()), LimitExceeded)

    @pytest.mark.parametrize(
        "plaintext",
        [bytes(range(256))[:128], bytes(range(128, 256)), bytes(32), b"\xff" * 32, b"\r\n\0\n" * 8],
        ids=["lower half of the byte values", "upper half", "zeros", "ones", "line ends"],
    )
    def test_every_byte_value_survives(self, keys: Keys, key: ManagedKey, plaintext: bytes) -> None:
        """No text encoding or trimming is in the way."""
        for start in range(0, len(plaintext), key.max_plaintext):
            part = plaintext[start : start + key.max_plaintext]
            assert key.unwrap(key.wrap(part, bound()), bound()) == part

    def test_two_wraps_of_one_payload_differ(self, key: ManagedKey, plaintext: bytes) -> None:
        """Nobody can tell from two wrapped keys that they hold the same."""
        assert key.wrap(plaintext, bound()).ciphertext != key.wrap(plaintext, bound()).ciphertext

    def test_wrapped_key_does_not_show_the_payload(self, key: ManagedKey, plaintext: bytes) -> None:
        """It is encrypted: no eight bytes of it stand in the wrapped key."""
        ciphertext = key.wrap(plaintext, bound()).ciphertext
        windows = (plaintext[n : n + 8] for n in range(len(plaintext) - 7))
        assert not [window for window in windows if window in ciphertext or window[::-1] in ciphertext]

    def test_each_wrapped_key_opens_to_its_own_payload(self, key: ManagedKey) -> None:
        """In whatever order they are unwrapped, and however often."""
        sent = [secrets.token_bytes(32) for _ in range(3)]
        wrapped = [key.wrap(each, bound()) for each in sent]
        for order in itertools.permutations(range(3)):
            assert [key.unwrap(wrapped[n], bound()) for n in order] == [sent[n] for n in order]

    def test_another_driver_of_the_key_unwraps(self, keys: Keys, plaintext: bytes) -> None:
        """Nothing that is needed stays in the driver that wrapped."""
        wrapped = keys.open().wrap(plaintext, bound())
        assert keys.open().unwrap(wrapped, bound()) == plaintext
