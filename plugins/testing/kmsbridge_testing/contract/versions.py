"""Group 4: other keys do not open it, and newer versions of the key do."""

from __future__ import annotations

import pytest

from kmsbridge.driver import Capability
from kmsbridge.errors import AuthenticationError, KmsInvalidRequest, KmsKeyNotFound
from kmsbridge.keys import ManagedKey
from kmsbridge_testing.contract.base import Cases, Keys, bound, needs, refused
from kmsbridge_testing.harness import Harness


class VersionCases(Cases):
    """Two keys of one provider, and the versions of one."""

    def test_another_key_refuses(self, keys: Keys, key: ManagedKey, plaintext: bytes) -> None:
        """A wrapped key of another key is not this one's to open."""
        wrapped = key.wrap(plaintext, bound())
        second = keys.open("second")
        refused(
            lambda: second.unwrap(wrapped, bound()), AuthenticationError, KmsInvalidRequest, KmsKeyNotFound
        )

    def test_another_key_refuses_what_claims_to_be_its_own(
        self, keys: Keys, key: ManagedKey, plaintext: bytes
    ) -> None:
        """Whoever can write messages can put any key's id in front of a wrapped key."""
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
        """Whoever can write messages can label a wrapped key as they like; a driver that goes by it says so."""
        wrapped = key.wrap(plaintext, bound())
        if not key.reads_version:
            assert key.unwrap(wrapped._replace(version=label), bound()) == plaintext

    @needs("rotate")
    def test_wrapped_before_a_rotation_opens_after_it(
        self, harness: Harness, keys: Keys, key: ManagedKey, plaintext: bytes
    ) -> None:
        """By the driver that was open, and by one that is opened then; after several rotations too."""
        wrapped = []
        for _ in range(3):
            wrapped.append(key.wrap(plaintext, bound()))
            harness.rotate("first")
        for each in wrapped:
            assert key.unwrap(each, bound()) == plaintext
            assert keys.open().unwrap(each, bound()) == plaintext

    @needs("rotate")
    def test_rotation_keeps_the_key_id(self, harness: Harness, keys: Keys, key: ManagedKey) -> None:
        """It goes into messages."""
        before = key.key_id
        harness.rotate("first")
        assert key.key_id == keys.open().key_id == before

    @needs("rotate")
    def test_new_wraps_carry_the_new_version(
        self, harness: Harness, keys: Keys, key: ManagedKey, plaintext: bytes
    ) -> None:
        """Where versions are reported, the open driver reports the new one at once, and it still opens."""
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
        """The second key's version stays."""
        second = keys.open("second")
        before = second.wrap(plaintext, bound()).version
        harness.rotate("first")
        assert second.wrap(plaintext, bound()).version == before

    def test_rotation_by_the_driver_is_used_at_once(self, key: ManagedKey, plaintext: bytes) -> None:
        """Where the driver can rotate: the next wrap is by the new version, the last one still opens."""
        if Capability.ROTATE not in key.capabilities:
            refused(key.rotate, KmsInvalidRequest)
            return
        before = key.wrap(plaintext, bound())
        key.rotate()
        after = key.wrap(plaintext, bound())
        assert (after.version != before.version) is (Capability.REPORTS_VERSION in key.capabilities)
        assert [key.unwrap(each, bound()) for each in (before, after)] == [plaintext] * 2

    @needs("rotate")
    def test_batch_opens_every_version(self, harness: Harness, key: ManagedKey, plaintext: bytes) -> None:
        """Old and new wrapped keys in one batch, where there are batches."""
        items = []
        for _ in range(2):
            items.append((key.wrap(plaintext, bound()), bound()))
            harness.rotate("first")
        if Capability.BATCH_UNWRAP in key.capabilities:
            assert key.unwrap_many(items) == [plaintext] * 2
