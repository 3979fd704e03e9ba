"""Group 4: another key does not unwrap a wrapped key, and the same key does so after rotations."""

from __future__ import annotations

import pytest

from kmsbridge.driver import Capability, WrappedKey
from kmsbridge.errors import AuthenticationError, KmsInvalidRequest, KmsKeyNotFound
from kmsbridge.keys import ManagedKey
from kmsbridge_testing.contract.base import Cases, Keys, bound, needs, refused
from kmsbridge_testing.harness import Harness


class VersionCases(Cases):
    """Cases for two keys of one provider, and for the versions of one key."""

    def test_another_key_refuses(self, keys: Keys, key: ManagedKey, plaintext: bytes) -> None:
        """A key refuses the wrapped key of another."""
        wrapped = key.wrap(plaintext, bound())
        second = keys.open("second")
        refused(
            lambda: second.unwrap(wrapped, bound()), AuthenticationError, KmsInvalidRequest, KmsKeyNotFound
        )

    def test_another_key_refuses_what_claims_to_be_its_own(
        self, keys: Keys, key: ManagedKey, plaintext: bytes
    ) -> None:
        """A key refuses another's wrapped key under its own id: whoever can write messages can change the id."""
        second = keys.open("second")
        wrapped = key.wrap(plaintext, bound())._replace(key_id=second.key_id)
        refused(
            lambda: second.unwrap(wrapped, bound()), AuthenticationError, KmsInvalidRequest, KmsKeyNotFound
        )

    @pytest.mark.parametrize(
        "label", ["", "1", "2", "7", "no-such-version"], ids=lambda label: label or "none"
    )
    def test_label_of_the_version_decides_nothing(
        self, key: ManagedKey, plaintext: bytes, label: str
    ) -> None:
        """With `reads_version` false, a wrapped key unwraps under any `version`."""
        wrapped = key.wrap(plaintext, bound())
        if not key.reads_version:
            assert key.unwrap(wrapped._replace(version=label), bound()) == plaintext

    @needs("rotate")
    def test_version_read_from_the_bytes_is_that_of_the_wrap(
        self, harness: Harness, keys: Keys, key: ManagedKey, plaintext: bytes
    ) -> None:
        """A driver that reads the version from wrapped bytes reads the one of the wrap, and none from noise."""
        old = key.wrap(plaintext, bound())
        harness.rotate("first")
        driver = keys.driver()
        for wrapped in (old, key.wrap(plaintext, bound())):
            assert driver.version_of(wrapped.ciphertext) in (None, wrapped.version)
        for noise in (b"", bytes(60), b"no wrapped key", bytes(range(256))):
            assert driver.version_of(noise) is None, f"a version was read from {noise[:16]!r}"

    @needs("rotate")
    def test_wrapped_before_a_rotation_opens_after_it(
        self, harness: Harness, keys: Keys, key: ManagedKey, plaintext: bytes
    ) -> None:
        """Wrapped keys of old versions unwrap after several rotations, by an open driver and by a new one."""
        versions = []
        for _ in range(3):
            versions.append(key.wrap(plaintext, bound()))
            harness.rotate("first")
        for wrapped in versions:
            assert key.unwrap(wrapped, bound()) == plaintext
            assert keys.open().unwrap(wrapped, bound()) == plaintext

    @needs("rotate")
    def test_rotation_keeps_the_key_id(self, harness: Harness, keys: Keys, key: ManagedKey) -> None:
        """A rotation does not change the key's id, which is in messages."""
        before = key.key_id
        harness.rotate("first")
        assert key.key_id == keys.open().key_id == before

    @needs("rotate")
    def test_new_wraps_carry_the_new_version(
        self, harness: Harness, keys: Keys, key: ManagedKey, plaintext: bytes
    ) -> None:
        """With REPORTS_VERSION, an open driver reports the new version at the next wrap."""
        before = key.wrap(plaintext, bound()).version
        harness.rotate("first")
        after = key.wrap(plaintext, bound())
        assert (after.version != before) is (Capability.REPORTS_VERSION in key.capabilities)
        assert after.version == key.describe().version
        assert keys.open().unwrap(after, bound()) == plaintext

    @needs("rotate")
    def test_rotation_of_one_key_leaves_another_alone(
        self, harness: Harness, keys: Keys, plaintext: bytes
    ) -> None:
        """Rotating one key does not change another's version."""
        second = keys.open("second")
        before = second.wrap(plaintext, bound()).version
        harness.rotate("first")
        assert second.wrap(plaintext, bound()).version == before

    def test_rotation_by_the_driver_is_used_at_once(self, key: ManagedKey, plaintext: bytes) -> None:
        """With ROTATE, the next wrap uses the new version, and the previous wrapped key still unwraps."""
        if Capability.ROTATE not in key.capabilities:
            refused(key.rotate, KmsInvalidRequest)
            return
        before = key.wrap(plaintext, bound())
        key.rotate()
        after = key.wrap(plaintext, bound())
        assert (after.version != before.version) is (Capability.REPORTS_VERSION in key.capabilities)
        assert [key.unwrap(each, bound()) for each in (before, after)] == [plaintext] * 2

    @needs("rotate")
    def test_outdated_wrap_is_told_by_the_service(
        self, harness: Harness, key: ManagedKey, plaintext: bytes
    ) -> None:
        """With CHECKS_VERSION, `is_current` goes by the ciphertext, whatever its label; a changed one is refused."""
        old = key.wrap(plaintext, bound())
        harness.rotate("first")
        new = key.wrap(plaintext, bound())

        def current(wrapped: WrappedKey) -> bool | None:
            return key.is_current(wrapped, bound(), deadline=key.new_deadline())

        expected = (True, False) if Capability.CHECKS_VERSION in key.capabilities else (None, None)
        assert (current(new), current(old)) == expected
        if not key.reads_version:
            assert current(old._replace(version=new.version)) is expected[1]
        changed = new._replace(ciphertext=new.ciphertext[:-1] + bytes([new.ciphertext[-1] ^ 1]))
        refused(lambda: current(changed), AuthenticationError, KmsInvalidRequest)

    @needs("rotate")
    def test_batch_opens_every_version(self, harness: Harness, key: ManagedKey, plaintext: bytes) -> None:
        """Wrapped keys of old and new versions unwrap in one batch."""
        items = []
        for _ in range(2):
            items.append((key.wrap(plaintext, bound()), bound()))
            harness.rotate("first")
        if Capability.BATCH_UNWRAP in key.capabilities:
            assert key.unwrap_many(items) == [plaintext] * 2
