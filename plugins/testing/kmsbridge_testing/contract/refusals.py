"""Group 5: why a service refuses shows in the class of the error."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import pytest

from kmsbridge.driver import Capability, KeyState, WrappedKey
from kmsbridge.errors import (
    ConfigError,
    KmsAccessDenied,
    KmsError,
    KmsKeyDisabled,
    KmsKeyNotFound,
    KmsUnauthenticated,
)
from kmsbridge.keys import ManagedKey
from kmsbridge_testing.contract.base import Cases, Keys, bound, needs, refused
from kmsbridge_testing.harness import Harness

Call = Callable[[ManagedKey, WrappedKey], Any]


def rewrapped(key: ManagedKey, wrapped: WrappedKey, pairs: Mapping[str, str] | None = None) -> WrappedKey:
    """By the service where it can; otherwise as the library does it then."""
    if key.rewraps_from(key.key_id):
        return key.rewrap(wrapped, bound(pairs))
    return key.wrap(key.unwrap(wrapped, bound(pairs)), bound(pairs))


CALLS: dict[str, Call] = {
    "wrap": lambda key, _: key.wrap(bytes(32), bound()),
    "unwrap": lambda key, wrapped: key.unwrap(wrapped, bound()),
    "describe": lambda key, _: key.describe(),
    "rewrap": rewrapped,
}
USES: Final = ("wrap", "unwrap", "rewrap")
every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
every_use = pytest.mark.parametrize("call", [CALLS[name] for name in USES], ids=USES)


def needs_no_service(key: ManagedKey, call: Call) -> bool:
    """Whether a public key is enough for the call, so that the service cannot refuse it or be missed."""
    return call is CALLS["wrap"] and Capability.LOCAL_WRAP in key.capabilities


class RefusalCases(Cases):
    """States of keys, rights of callers, credentials that are over."""

    @pytest.fixture
    def wrapped(self, key: ManagedKey, plaintext: bytes) -> WrappedKey:
        """Made while all was well."""
        return key.wrap(plaintext, bound())

    @needs("disable")
    @every_use
    def test_disabled_key_is_told(
        self, harness: Harness, key: ManagedKey, wrapped: WrappedKey, call: Call
    ) -> None:
        """`KmsKeyDisabled`, with the key and the operation, after one attempt."""
        harness.disable("first")
        _told(key, wrapped, call, KmsKeyDisabled)

    @needs("disable")
    def test_key_that_was_used_is_disabled_all_the_same(
        self, harness: Harness, key: ManagedKey, wrapped: WrappedKey, plaintext: bytes
    ) -> None:
        """A driver that remembers what it unwrapped would outlive the end of a key."""
        assert key.unwrap(wrapped, bound()) == plaintext
        harness.disable("first")
        _told(key, wrapped, CALLS["unwrap"], KmsKeyDisabled)

    @needs("disable", "calls")
    @every_use
    def test_refused_call_is_made_once(
        self, harness: Harness, key: ManagedKey, wrapped: WrappedKey, call: Call
    ) -> None:
        """The service is asked once, not by the driver or its client again."""
        harness.disable("first")
        before = harness.calls("first")
        _told(key, wrapped, call, KmsKeyDisabled)
        assert harness.calls("first") - before == (0 if needs_no_service(key, call) else 1)

    @needs("disable")
    def test_description_follows_the_state(self, harness: Harness, key: ManagedKey) -> None:
        """Each description is asked for anew, by the same object."""
        known = key.describe().state is not KeyState.UNKNOWN
        harness.disable("first")
        assert key.describe().state is KeyState.DISABLED
        harness.enable("first")
        assert key.describe().state is (KeyState.ENABLED if known else KeyState.UNKNOWN)

    @needs("disable")
    def test_disabled_key_is_described(self, harness: Harness, key: ManagedKey) -> None:
        """Describing tells the state, and is no use of the key."""
        harness.disable("first")
        assert key.describe().state is KeyState.DISABLED

    @needs("disable")
    def test_enabled_again_it_works(
        self, harness: Harness, key: ManagedKey, wrapped: WrappedKey, plaintext: bytes
    ) -> None:
        """The same object goes on."""
        harness.disable("first")
        refused(lambda: key.unwrap(wrapped, bound()), KmsKeyDisabled)
        harness.enable("first")
        assert key.unwrap(wrapped, bound()) == plaintext
        assert key.describe().state in (KeyState.ENABLED, KeyState.UNKNOWN)

    @needs("disable")
    def test_other_key_stays_enabled(self, harness: Harness, keys: Keys, plaintext: bytes) -> None:
        """A state is one key's."""
        second = keys.open("second")
        harness.disable("first")
        assert second.unwrap(second.wrap(plaintext, bound()), bound()) == plaintext

    @needs("schedule_deletion")
    @every_use
    def test_pending_deletion_is_told(
        self, harness: Harness, key: ManagedKey, wrapped: WrappedKey, call: Call
    ) -> None:
        """`KmsKeyDisabled`: it can still be had back."""
        harness.schedule_deletion("first")
        _told(key, wrapped, call, KmsKeyDisabled)

    @needs("schedule_deletion")
    def test_pending_deletion_is_described(self, harness: Harness, key: ManagedKey) -> None:
        """Describing tells the state."""
        harness.schedule_deletion("first")
        assert key.describe().state is KeyState.PENDING_DELETION

    @needs("delete")
    @every_call
    def test_deleted_key_is_told(
        self, harness: Harness, key: ManagedKey, wrapped: WrappedKey, call: Call
    ) -> None:
        """`KmsKeyNotFound`."""
        harness.delete("first")
        _told(key, wrapped, call, KmsKeyNotFound)

    @needs("named")
    @every_call
    def test_unknown_key_is_told(self, harness: Harness, keys: Keys, wrapped: WrappedKey, call: Call) -> None:
        """`KmsKeyNotFound`, or `ConfigError` at open where that can tell; no key comes into being."""
        address = harness.named(f"no-such-key-{secrets.token_hex(4)}")
        for _ in range(2):
            try:
                key = keys.at(address)
            except ConfigError:
                continue
            if not needs_no_service(key, call):
                refused(partial(call, key, wrapped), KmsKeyNotFound, ConfigError)

    @needs("roles")
    def test_encrypt_only_caller_wraps_and_cannot_unwrap(
        self, keys: Keys, key: ManagedKey, plaintext: bytes
    ) -> None:
        """What it wraps opens for who may; for itself it is `KmsAccessDenied`."""
        encrypting = keys.open(role="encrypt-only")
        wrapped = encrypting.wrap(plaintext, bound())
        assert key.unwrap(wrapped, bound()) == plaintext
        _told(encrypting, wrapped, CALLS["unwrap"], KmsAccessDenied)

    @needs("roles")
    def test_decrypt_only_caller_unwraps_and_cannot_wrap(
        self, keys: Keys, key: ManagedKey, plaintext: bytes
    ) -> None:
        """The other way round."""
        decrypting = keys.open(role="decrypt-only")
        assert decrypting.key_id == key.key_id
        wrapped = key.wrap(plaintext, bound())
        assert decrypting.unwrap(wrapped, bound()) == plaintext
        _told(decrypting, wrapped, CALLS["wrap"], KmsAccessDenied)

    @needs("roles")
    @pytest.mark.parametrize("role", ["encrypt-only", "decrypt-only"])
    def test_half_a_right_does_not_rewrap(self, keys: Keys, wrapped: WrappedKey, role: Any) -> None:
        """By the service it takes both; otherwise it takes both calls, the unwrap first."""
        key = keys.open(role=role)
        if key.rewraps_from(key.key_id) or role == "encrypt-only":
            _told(key, wrapped, CALLS["rewrap"], KmsAccessDenied)

    @needs("roles")
    @pytest.mark.parametrize(
        ("role", "may"),
        [("encrypt-only", (True, False)), ("decrypt-only", (False, True))],
        ids=["encrypt-only", "decrypt-only"],
    )
    def test_description_is_true_of_the_caller(self, keys: Keys, role: Any, may: tuple[bool, bool]) -> None:
        """Where it tells what the caller may do it is right; it may also be denied."""
        key = keys.open(role=role)
        try:
            description = key.describe()
        except KmsAccessDenied:
            return
        assert description.may_wrap in (may[0] or needs_no_service(key, CALLS["wrap"]), None)
        assert description.may_unwrap in (may[1], None)

    def test_description_denies_no_right_that_the_caller_has(self, key: ManagedKey) -> None:
        """A caller that may do everything is not told that it may not."""
        description = key.describe()
        assert description.may_wrap is not False
        assert description.may_unwrap is not False

    @needs("expire_credentials")
    @every_call
    def test_expired_credentials_are_told(
        self, harness: Harness, key: ManagedKey, wrapped: WrappedKey, call: Call
    ) -> None:
        """`KmsUnauthenticated`, by a driver that was open before."""
        harness.expire_credentials()
        _told(key, wrapped, call, KmsUnauthenticated)


def _told(key: ManagedKey, wrapped: WrappedKey, call: Call, kind: type[KmsError]) -> None:
    """The call is refused so, with all that is due; one that needs no service works."""
    if needs_no_service(key, call):
        assert call(key, wrapped)
        return
    error = refused(lambda: call(key, wrapped), kind)
    assert isinstance(error, KmsError)
    assert error.key_id == key.key_id
    assert error.operation in CALLS
    assert error.attempts == 1, "an error that will not go away was tried again"
    assert error.remedy
