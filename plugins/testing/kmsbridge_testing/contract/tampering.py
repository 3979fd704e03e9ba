"""Group 3: a changed wrapped key does not unwrap."""

from __future__ import annotations

import secrets
from functools import partial

import pytest

from kmsbridge.driver import WrappedKey
from kmsbridge.errors import AuthenticationError, KmsBridgeError, KmsInvalidRequest, KmsKeyNotFound
from kmsbridge.keys import ManagedKey
from kmsbridge.message import MAX_KEY_VERSION
from kmsbridge_testing.contract.base import Cases, Keys, bound, refused
from kmsbridge_testing.contract.watch import network_events_of

REFUSALS = (AuthenticationError, KmsInvalidRequest)
VERSIONS = {
    "empty": "",
    "zero": "0",
    "not made yet": "999",
    "path of another key": "../second",
    "longest": "9" * MAX_KEY_VERSION,
    "line end": "1\n",
    "NUL": "\0",
}


class TamperingCases(Cases):
    """Cases for changed wrapped keys: each is an `AuthenticationError` or `KmsInvalidRequest`, and no other error."""

    @pytest.fixture
    def wrapped(self, key: ManagedKey, plaintext: bytes) -> WrappedKey:
        """The wrapped key that the cases change."""
        return key.wrap(plaintext, bound())

    @pytest.mark.parametrize("bit", [0x01, 0x20, 0x80], ids=["low bit", "middle bit", "high bit"])
    def test_flip_of_each_byte_is_refused(self, key: ManagedKey, wrapped: WrappedKey, bit: int) -> None:
        """A wrapped key with any one bit flipped is refused."""
        for place in range(len(wrapped.ciphertext)):
            changed = bytearray(wrapped.ciphertext)
            changed[place] ^= bit
            _refused(key, wrapped, bytes(changed))

    def test_each_truncation_is_refused(self, key: ManagedKey, wrapped: WrappedKey) -> None:
        """A wrapped key cut at its end is refused, at every length."""
        for length in range(1, len(wrapped.ciphertext)):
            _refused(key, wrapped, wrapped.ciphertext[:length])

    def test_each_missing_start_is_refused(self, key: ManagedKey, wrapped: WrappedKey) -> None:
        """A wrapped key cut at its start is refused, at every length."""
        for start in range(1, len(wrapped.ciphertext)):
            _refused(key, wrapped, wrapped.ciphertext[start:])

    @pytest.mark.parametrize(
        "added",
        [b"\0", b"\n", b"=", b" ", bytes(16)],
        ids=["NUL", "newline", "padding sign", "space", "block"],
    )
    def test_appended_bytes_are_refused(self, key: ManagedKey, wrapped: WrappedKey, added: bytes) -> None:
        """Appended bytes are refused, also those that a lenient decoder ignores."""
        _refused(key, wrapped, wrapped.ciphertext + added)

    def test_leading_byte_is_refused(self, key: ManagedKey, wrapped: WrappedKey) -> None:
        """A byte before a wrapped key is refused."""
        _refused(key, wrapped, b" " + wrapped.ciphertext)

    def test_nothing_at_all_is_refused(self, key: ManagedKey, wrapped: WrappedKey) -> None:
        """An empty wrapped key is refused."""
        _refused(key, wrapped, b"")

    @pytest.mark.parametrize("length", [1, 16, 32, 100, 4096, 16384])
    def test_random_bytes_are_refused(self, key: ManagedKey, wrapped: WrappedKey, length: int) -> None:
        """Random bytes of every length up to a message's limit are refused."""
        _refused(key, wrapped, secrets.token_bytes(length))

    def test_halves_of_two_are_refused(self, key: ManagedKey, wrapped: WrappedKey) -> None:
        """The start of one wrapped key with the end of another is refused."""
        other = key.wrap(secrets.token_bytes(32), bound()).ciphertext
        middle = len(other) // 2
        _refused(key, wrapped, wrapped.ciphertext[:middle] + other[middle:])

    @pytest.mark.parametrize("version", VERSIONS.values(), ids=VERSIONS)
    def test_changed_version_opens_nothing_else(
        self, key: ManagedKey, wrapped: WrappedKey, plaintext: bytes, version: str
    ) -> None:
        """A changed version is refused, or is not used to unwrap: it comes from a message and is not trusted."""
        try:
            assert key.unwrap(wrapped._replace(version=version), bound()) == plaintext
        except KmsBridgeError as error:
            assert type(error) in (*REFUSALS, KmsKeyNotFound), repr(error)  # noqa: PT017 - or none is raised
        assert key.unwrap(wrapped, bound()) == plaintext

    def test_version_selects_no_other_key(self, keys: Keys, key: ManagedKey, plaintext: bytes) -> None:
        """A wrapped key of another key does not unwrap, even if its version names that key."""
        second = keys.open("second")
        theirs = second.wrap(plaintext, bound())
        name = second.key_id.partition(":")[2]
        for version in (second.key_id, name, f"../{name}", f"../{name}/{theirs.version}"):
            if len(version.encode()) <= MAX_KEY_VERSION:
                passed_off = theirs._replace(key_id=key.key_id, version=version)
                refused(partial(key.unwrap, passed_off, bound()), *REFUSALS, KmsKeyNotFound)

    def test_forgeries_are_refused(self, key: ManagedKey) -> None:
        """The driver's `forgeries` name this key and do not unwrap."""
        key_id = key.key_id
        for forgery in key.driver.forgeries():
            assert isinstance(forgery, WrappedKey)
            assert forgery.key_id == key_id
            refused(partial(key.unwrap, forgery, bound()), *REFUSALS)

    def test_forgeries_take_no_call(self, key: ManagedKey) -> None:
        """`forgeries` makes no call."""
        assert key.key_id
        assert not network_events_of(key.driver.forgeries)


def _refused(key: ManagedKey, wrapped: WrappedKey, ciphertext: bytes) -> None:
    refused(lambda: key.unwrap(wrapped._replace(ciphertext=ciphertext), bound()), *REFUSALS)
